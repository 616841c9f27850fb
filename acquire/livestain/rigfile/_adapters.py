"""What Micro-Manager's common adapter libraries hold, so that a rig file can be read without them."""

from __future__ import annotations

__all__ = ["CAMERA_LIBRARIES", "DEVICE_TYPES", "OTHER_LIBRARIES"]

# The libraries every Micro-Manager has; the devices of others only tell what they are by how they are used.
DEVICE_TYPES = {
    "DemoCamera": {
        "DCam": "camera", "DWheel": "state device", "DStateDevice": "state device",
        "DObjective": "state device", "DStage": "stage", "DXYStage": "XY stage",
        "DLightPath": "state device", "DAutoFocus": "autofocus", "DShutter": "shutter",
        "D-DA": "signal output", "D-DA2": "signal output", "DOptovar": "magnifier", "DGalvo": "galvo",
        "DHub": "hub", "DPressurePump": "pump", "DVolumetricPump": "pump",
        "TransposeProcessor": "image processor", "ImageFlipX": "image processor",
        "ImageFlipY": "image processor", "MedianFilter": "image processor",
    },
    "Utilities": {
        "Multi Shutter": "shutter", "Multi Camera": "camera", "Multi Stage": "stage",
        "Combo XY Stage": "XY stage", "Single Axis Stage": "stage", "DA Shutter": "shutter",
        "DA Monochromator": "shutter", "DA Z Stage": "stage", "DA XY Stage": "XY stage",
        "DA TTL State Device": "state device", "DA Galvo": "galvo",
        "Multi DA State Device": "state device", "AutoFocus Stage": "stage",
        "State Device Shutter": "shutter", "Property Shutter": "shutter",
        "Serial port DTR Shutter": "shutter", "Stage State Device": "state device",
    },
}  # fmt: skip
# Not complete: a camera of another library is known by its role or its name.
CAMERA_LIBRARIES = frozenset(
    [
        "ABS", "AlliedVisionCamera", "AmScope", "Andor", "AndorSDK3", "Aravis", "Atik", "Basler",
        "BaumerOptronic", "DahengGalaxy", "dc1394", "DirectElectron", "FakeCamera", "Fli", "FLICamera",
        "GigECamera", "HamamatsuHam", "Hikrobot", "IDS_uEye", "IDSPeak", "IIDC", "JAI", "Lumenera",
        "MatrixVision", "Mightex_C_Cam", "Mightex_SB_Cam", "Motic", "NikonKs", "OpenCVgrabber",
        "PCO_Generic", "PICAM", "Pixelink", "PlayerOne", "PointGrey", "PVCAM", "QCam", "QSI",
        "RaptorEPIX", "Revealer", "ScionCam", "Sensicam", "SimpleCam", "Spinnaker", "SpinnakerC",
        "Spot", "StarlightXpress", "ThorlabsUSBCamera", "TISCam", "TSI", "TUCam", "TwainCamera",
        "TwoPhoton", "Video4Linux", "Ximea", "ZWO",
    ]
)  # fmt: skip
# Common ones, to suggest where a name is misspelt.
OTHER_LIBRARIES = frozenset(
    [
        "Arduino", "ASIStage", "ASITiger", "CoherentOBIS", "CoherentScientificRemote", "CoolLEDpE300",
        "CoolLEDpE4000", "DemoCamera", "ESP32", "FreeSerialPort", "LeicaDMI", "Ludl", "LumencorSpectra",
        "Marzhauser", "MCL_MicroDrive", "MCL_NanoDrive", "NewportCONEX", "NIDAQ", "Nikon", "NikonTi",
        "Omicron", "Oxxius", "OxxiusCombiner", "pgFocus", "PI_GCS_2", "Prior", "Sapphire",
        "SerialManager", "SutterLambda", "ThorlabsElliptecSlider", "ThorlabsFilterWheel",
        "TriggerScope", "TriggerScopeMM", "Utilities", "Vincent", "Zaber", "ZeissCAN29",
    ]
)  # fmt: skip
