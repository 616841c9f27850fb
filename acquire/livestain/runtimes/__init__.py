"""What runs a model's graph: onnxruntime on CPU and graphics card, OpenVINO on CPU."""
