"""Label-free live-cell imaging: fluorescence predicted from bright field while the camera runs."""
