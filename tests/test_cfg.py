"""The checker of rig files against a table of faults, against the real core, and on the files of real rigs."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import UniMMCore

from livestain._errors import LivestainError, RigError
from livestain.rigfile import Finding, check_rig_file, read_rig_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIGS = Path(__file__).parents[1] / "hardware_configs"
REAL = Path(__file__).parents[1].parent / "shared" / "data" / "rig_files"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the files of real rigs are not here: {REAL}")

HEAD = """\
Property,Core,Initialize,0
Device,Hub,DemoCamera,DHub
Device,Camera,DemoCamera,DCam
Device,Shutter,DemoCamera,DShutter
Device,Z,DemoCamera,DStage
Device,XY,DemoCamera,DXYStage
Device,LED,DemoCamera,DStateDevice
Device,Wheel,DemoCamera,DWheel
Property,LED,Number of positions,4
"""
START = "Property,Core,Initialize,1\n"
TAIL = """\
Property,Core,Camera,Camera
Label,LED,0,Off
Label,LED,1,Blue
ConfigGroup,Channel,BF,LED,Label,Off
ConfigGroup,Channel,GFP,LED,Label,Blue
ConfigPixelSize,20x,Wheel,State,0
PixelSize_um,20x,0.325
"""

ACCEPTS, REFUSES = True, False


class Case(NamedTuple):
    """Lines put before or after the devices start; the first finding expected on the line `at` (or last)."""

    fragment: str
    core: bool  # whether MMCore loads the file
    severity: str = "error"
    before: str = ""
    after: str = ""
    at: str = ""

    def text(self) -> str:
        return HEAD + self.before + START + TAIL + self.after

    def line(self) -> int:
        lines = self.text().splitlines()
        wanted = self.at or (self.after or self.before).splitlines()[-1]
        return len(lines) - lines[::-1].index(wanted)


CASES = [
    # commands and fields
    Case("'Propety' is no command", ACCEPTS, after="Propety,Camera,Binning,2"),
    Case("Write 'Device'", ACCEPTS, before="device,Z2,DemoCamera,DStage\n"),
    Case("Write 'PixelSizeAngle_dxdz'", ACCEPTS, after="PixelSize_dxdz,20x,0"),
    Case("'  Property' is no command", ACCEPTS, after="  Property,Camera,Binning,2"),
    Case("'hello' is no command", ACCEPTS, after="hello"),
    Case("not separated by commas", ACCEPTS, after="Property;Camera;Binning;2"),
    Case("not separated by commas", ACCEPTS, after="Property\tCamera\tBinning\t2"),
    Case("commas only", REFUSES, after=",,,"),
    Case("Device takes 3 fields, got 2", REFUSES, before="Device,Z2,DemoCamera\n"),
    Case("Device takes 3 fields, got 4", REFUSES, before="Device,Z2,DemoCamera,DStage,1\n"),
    Case("Field 2 after Device is empty", REFUSES, before="Device,Z2,,DStage\n"),
    Case("Property takes 2 or 3 fields, got 4", REFUSES, after="Property,Camera,Binning,2,3"),
    Case("Property takes 2 or 3 fields, got 0", REFUSES, after="Property"),
    Case("Label takes 3 fields, got 2", REFUSES, after="Label,LED,0,"),
    Case("ConfigGroup takes 1 or 4 or 5 fields, got 2", REFUSES, after="ConfigGroup,Channel,BF"),
    Case("Field 2 after ConfigGroup is empty", ACCEPTS, after="ConfigGroup,Channel,,LED,Label,Off"),
    Case("0,65 for 0.65", REFUSES, after="PixelSize_um,20x,0,65"),
    Case("CameraID of 'Camera' stands without a value", ACCEPTS, "warning", after="Property,Camera,CameraID"),
    Case("Binning of 'Camera' stands without a value", ACCEPTS, "warning", after="ConfigGroup,A,B,Camera,Binning"),
    Case("comma too many", ACCEPTS, "warning", after="Property,Camera,Binning,2,"),
    Case("removed the command 'Equipment'", REFUSES, after="Equipment,Camera,Binning,2"),
    Case("removed the command 'ImageSynchro'", REFUSES, after="ImageSynchro,Camera"),
    Case("removed the command 'Config'", REFUSES, after="Config,a,b"),
    Case("skips 'Config' lines", ACCEPTS, "warning", after="Config,a,b,c,d"),
    Case("no adapter is called ' DemoCamera,DStage'", REFUSES, before="Device,Z2, DemoCamera,DStage\n"),
    Case("Spaces beside commas", ACCEPTS, "warning", before="Device, Z2,DemoCamera,DStage\n"),
    Case("looks like a plain one (U+2019)", ACCEPTS, "warning", after="ConfigGroup,Other,a\u2019b,LED,State,1"),
    Case("outside ASCII", ACCEPTS, "warning", after="ConfigGroup,Other,5 µm,LED,State,1"),
    Case("beyond 4099 Micro-Manager stops", ACCEPTS, after="#" + 4099 * "x" + "\nDevice", at="#" + 4099 * "x"),
    Case("is a remark", ACCEPTS, "warning", after="# py pyDevice,Cam,package.module,Class"),
    Case("is a remark", ACCEPTS, "warning", after="#pyDevice,Cam,package.module,Class"),
    # order
    Case("second time", REFUSES, after="Property,Core,Initialize,1"),
    Case("unloads the devices declared from line 2 on", ACCEPTS, after="Property,Core,Initialize,0"),
    Case("Initialize takes 0 or 1, got '2'", REFUSES, after="Property,Core,Initialize,2"),
    Case("declared after Property,Core,Initialize,1", REFUSES, after="Device,Z2,DemoCamera,DStage"),
    Case("Labels are defined before", REFUSES, before="Label,LED,2,Red\n"),
    Case("too late for the devices", ACCEPTS, "warning", after="Parent,Camera,Hub"),
    Case("resets roles", ACCEPTS, "warning", before="Property,Core,Shutter,Shutter\n"),
    Case("declared only on line 11", REFUSES, before="Delay,Z2,5\nDevice,Z2,DemoCamera,DStage\n", at="Delay,Z2,5"),
    # devices
    Case("already declared on line 5", REFUSES, before="Device,Z,DemoCamera,DStage\n"),
    Case("Micro-Manager's own device", REFUSES, before="Device,Core,DemoCamera,DStage\n"),
    Case("Did you mean 'Camera'?", REFUSES, after="Property,Camra,Binning,2"),
    Case("'Joystick' is never declared. Declare it", REFUSES, after="Delay,Joystick,5"),
    Case("'Nope' is never declared", REFUSES, after="Label,Nope,0,a"),
    Case("'Nope' is never declared", ACCEPTS, after="FocusDirection,Nope,1"),
    Case("'Nope' is never declared", REFUSES, before="Parent,Nope,Hub\n"),
    Case("'Nope' is never declared", ACCEPTS, before="Parent,Camera,Nope\n"),
    Case("'Nope' is never declared", ACCEPTS, after="ConfigGroup,Other,On,Nope,State,1"),
    Case("'Nope' is never declared", REFUSES, after="ConfigGroup,System,Startup,Nope,State,1"),
    Case("'Nope' is never declared", REFUSES, after="ConfigGroup,System,Startup,Core,Camera,Nope"),
    Case("'Nope' is never declared", ACCEPTS, after="ConfigPixelSize,20x,Nope,State,1"),
    Case("'Camera ' is never declared. Did you mean 'Camera'", REFUSES, after="Property,Core,Camera,Camera "),
    Case("'Nope' is never declared", REFUSES, after="Property,Core,Shutter,Nope"),
    Case("'Z' is assigned as Camera, which is for a camera", REFUSES, after="Property,Core,Camera,Z"),
    Case("'XY' is assigned as Focus, which is for a stage", REFUSES, after="Property,Core,Focus,XY"),
    Case("'Z' is given a state label", REFUSES, after="Label,Z,0,Up"),
    Case("Did you mean 'Camera'?", REFUSES, after="Property,Core,Cammera,Camera"),
    Case("AutoShutter takes 0 or 1, got 'true'", REFUSES, after="Property,Core,AutoShutter,true"),
    Case("TimeoutMs takes a positive", REFUSES, after="Property,Core,TimeoutMs,soon"),
    Case("no group of this file. Did you mean 'Channel'", REFUSES, after="Property,Core,ChannelGroup,channels"),
    Case(
        "before the group is defined",
        REFUSES,
        after="Property,Core,ChannelGroup,Other\nConfigGroup,Other,On,LED,State,1",
        at="Property,Core,ChannelGroup,Other",
    ),
    Case("no time in ms: 'slow'", ACCEPTS, after="Delay,Camera,slow"),
    Case("no time in ms: '-5'", ACCEPTS, "warning", after="Delay,Camera,-5"),
    Case("is -1, 0 or 1, got 'up'", ACCEPTS, after="FocusDirection,Z,up"),
    Case("is -1, 0 or 1, got '5'", ACCEPTS, "warning", after="FocusDirection,Z,5"),
    Case("its own hub", ACCEPTS, before="Parent,Camera,Camera\n"),
    Case("which is no hub but: stage", ACCEPTS, before="Parent,Camera,Z\n"),
    Case("DemoCamera has no device 'DCamm'", REFUSES, "warning", before="Device,C2,DemoCamera,DCamm\n"),
    Case("Did you mean 'DemoCamera'?", REFUSES, "warning", before="Device,C2,DemoCamara,DCam\n"),
    Case(
        "'Nope' is never declared",
        REFUSES,
        before="Device,Multi,Utilities,Multi Camera\n",
        after="Property,Multi,Physical Camera 1,Nope",
    ),
    # states and labels
    Case("State 'two' of 'LED' is no whole number", ACCEPTS, after="Label,LED,two,Red"),
    Case("State '-1' of 'LED' is no whole number", ACCEPTS, after="Label,LED,-1,Red"),
    Case("'Number of positions' is 4", ACCEPTS, after="Label,LED,4,Red"),
    Case("'b', which replaces it", ACCEPTS, "warning", after="Label,Wheel,0,a\nLabel,Wheel,0,b"),
    Case("moves from state 1", ACCEPTS, "warning", after="Label,Wheel,1,a\nLabel,Wheel,2,a"),
    Case("'LED' has no label 'Bleu'", ACCEPTS, after="ConfigGroup,Channel,DAPI,LED,Label,Bleu"),
    Case("Did you mean 'Blue'?", REFUSES, after="ConfigGroup,System,Startup,LED,Label,Bleu"),
    Case("'LED' has no label 'State-0'", REFUSES, after="ConfigGroup,System,Startup,LED,Label,State-0"),
    Case("has 4 positions, so states 0 to 3, got '4'", REFUSES, after="ConfigGroup,System,Startup,LED,State,4"),
    # groups
    Case("defined above already", REFUSES, after="ConfigGroup,Channel"),
    Case("holds /, which Micro-Manager refuses", REFUSES, after="ConfigGroup,Objective,20x/0.8,LED,State,1"),
    Case("to 'Off' (line 14) and here to 'Blue'", ACCEPTS, after="ConfigGroup,Channel,BF,LED,Label,Blue"),
    Case("to 'Off' twice", ACCEPTS, "warning", after="ConfigGroup,Channel,BF,LED,Label,Off"),
    Case("does not set 'LED-Label'", ACCEPTS, "warning", after="ConfigGroup,Channel,RFP,Wheel,State,2"),
    Case("are the same settings", ACCEPTS, "warning", after="ConfigGroup,Channel,EGFP,LED,Label,Blue"),
    # pixel sizes
    Case("which no ConfigPixelSize defines", REFUSES, after="PixelSize_um,10x,0.65"),
    Case("which no ConfigPixelSize defines", REFUSES, after="PixelSizeAffine,10x,1,0,0,0,1,0"),
    Case(
        "defined only on line",
        REFUSES,
        after="PixelSize_um,10x,0.65\nConfigPixelSize,10x,Wheel,State,1",
        at="PixelSize_um,10x,0.65",
    ),
    Case("has no size", ACCEPTS, "warning", after="ConfigPixelSize,10x,Wheel,State,1"),
    Case("no positive number: 'small'", ACCEPTS, after="PixelSize_um,20x,small"),
    Case("no positive number: '-0.325'", ACCEPTS, after="PixelSize_um,20x,-0.325"),
    Case("on line 17 and 0.65 um here", ACCEPTS, after="PixelSize_um,20x,0.65", at="PixelSize_um,20x,0.65"),
    Case("not measured", ACCEPTS, "warning", after="ConfigPixelSize,10x,Wheel,State,1\nPixelSize_um,10x,0"),
    Case("Check the unit", ACCEPTS, "warning", after="ConfigPixelSize,10x,Wheel,State,1\nPixelSize_um,10x,325"),
    Case("not six numbers", ACCEPTS, after="PixelSizeAffine,20x,a,0,0,0,1,0"),
    Case("takes 7 fields, got 6", REFUSES, after="PixelSizeAffine,20x,1,0,0,0,1"),
    Case("singular", ACCEPTS, "warning", after="PixelSizeAffine,20x,0,0,0,0,0,0"),
    Case("makes a pixel 0.65 um", ACCEPTS, "warning", after="PixelSizeAffine,20x,-0.65,0,0,0,0.65,0"),
    Case("PixelSizeAngle_dxdz of '20x' is no number", ACCEPTS, after="PixelSizeAngle_dxdz,20x,steep"),
    Case(
        "of the pixel sizes are the same",
        ACCEPTS,
        "warning",
        after="ConfigPixelSize,10x,Wheel,State,0\nPixelSize_um,10x,0.65",
        at="ConfigPixelSize,10x,Wheel,State,0",
    ),
]


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], bool]]:
    """Whether the real core loads a text."""
    core = CMMCorePlus()
    path = tmp_path_factory.mktemp("core") / "rig.cfg"

    def load(text: str) -> bool:
        core.unloadAllDevices()
        path.write_text(text, encoding="utf-8")
        try:
            core.loadSystemConfiguration(path)
        except Exception:  # noqa: BLE001 pymmcore raises OSError, RuntimeError, ValueError
            return False
        return True

    yield load
    core.unloadAllDevices()


def check(path: Path, text: str | bytes | None = None) -> list[Finding]:
    if text is not None:
        path = path / "rig.cfg"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return check_rig_file(read_rig_file(path))


def in_order(finding: Finding) -> tuple[bool, int]:
    return finding.line is None, finding.line or 0


def errors(findings: list[Finding]) -> list[str]:
    return [str(f) for f in findings if f.severity == "error"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fragment)
def test_fault_is_found_where_it_is(case: Case, tmp_path: Path, loads: Callable[[str], bool]) -> None:
    findings = check(tmp_path, case.text())
    found = [f for f in findings if case.fragment in str(f)]
    assert found, "\n".join(map(str, findings))
    assert (found[0].line, found[0].severity) == (case.line(), case.severity)
    assert loads(case.text()) == case.core
    if case.severity == "warning":
        assert not errors(findings)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + START + TAIL,
        (HEAD + START + TAIL).replace("\n", "\r\n"),
        HEAD + START + TAIL + "Label,Wheel,5," + 4000 * "1",
        HEAD + START + TAIL + "   \n  # an indented remark",
        HEAD + START + TAIL + "Property,Camera,CameraID,\nProperty,Core,Shutter,\nConfigGroup,Later",
        HEAD + START + TAIL + "ConfigGroup,Channel,Red,LED,Label,State-3",  # the adapter's own label
        HEAD + START + TAIL + "Property,Core,ChannelGroup,Channel\nProperty,Core,AutoShutter,0",
        HEAD + "Parent,Camera,Hub2\nDevice,Hub2,DemoCamera,DHub\n" + START + TAIL,
        HEAD + START + TAIL + "PixelSizeAffine,20x,1,0,0,0,1,0",  # "not measured"
        HEAD + "Delay,Camera,5\nFocusDirection,Z,-1\nConfigGroup,Other,A,LED,State,1\n" + START + TAIL,
    ],
)
def test_sound_file_has_no_findings(text: str, tmp_path: Path, loads: Callable[[str], bool]) -> None:
    assert check(tmp_path, text) == []
    assert loads(text)


WHOLE_FILE = [
    (HEAD + TAIL, "error", "Nothing initialises the devices"),
    (HEAD.partition("\n")[2] + START + TAIL, "warning", "no Property,Core,Initialize,0"),
    ("Property,Core,Initialize,0\nProperty,Core,Initialize,1", "error", "No device is declared"),
    (HEAD.replace("Device,Camera,DemoCamera,DCam\n", "") + START, "error", "none of the 6 devices looks like one"),
    (HEAD + START, "warning", "takes the last one declared ('Camera')"),
    (HEAD + START, "warning", "No channel group"),
    (HEAD + START, "warning", "No pixel size"),
]


@pytest.mark.parametrize(("text", "severity", "fragment"), WHOLE_FILE)
def test_fault_of_the_whole_file(text: str, severity: str, fragment: str, tmp_path: Path) -> None:
    (found,) = [f for f in check(tmp_path, text) if fragment in f.message]
    assert (found.line, found.severity) == (None, severity)


PORTS = [
    ("", "Property,Stage,Port,COM3", "'Stage' is on port 'COM3', which is never declared"),
    ("Device,COM3,SerialManager,COM3\n", "Property,Stage,Port,Undefined", "has no port yet"),
    ("Device,COM3,SerialManager,COM3\n", "Property,COM4,BaudRate,9600", "Did you mean 'COM3'?"),
    (
        "Device,COM3,SerialManager,COM3\nProperty,Laser,Port,COM3\n",
        "Property,Stage,Port,COM3",
        "'Stage' and 'Laser' (line 6) are both on port 'COM3'",
    ),
]


@pytest.mark.parametrize(("before", "line", "fragment"), PORTS)
def test_fault_of_a_serial_port(before: str, line: str, fragment: str, tmp_path: Path) -> None:
    head = "Property,Core,Initialize,0\nDevice,Camera,PVCAM,Camera-1\nDevice,Stage,ASIStage,XYStage\n"
    text = head + "Device,Laser,CoherentOBIS,CoherentObis\n" + before + line + "\n" + START
    (found,) = [f for f in check(tmp_path, text) if fragment in str(f)]
    assert found.line == text.splitlines().index(line) + 1


def test_port_after_the_start_and_devices_of_one_maker_on_one_port(tmp_path: Path) -> None:
    text = (
        "Property,Core,Initialize,0\nDevice,COM3,SerialManager,COM3\nDevice,XY,ASIStage,XYStage\n"
        "Device,Z,ASIStage,ZStage\nDevice,Camera,PVCAM,Camera-1\nProperty,XY,Port,COM3\n"
        "Property,Core,Initialize,1\nProperty,Z,Port,COM3\nProperty,COM3,BaudRate,9600\n"
        "Property,Camera,Port,Speed\nProperty,Core,Camera,Camera\n"
    )
    found = [f for f in check(tmp_path, text) if f.line]
    assert [(f.line, f.severity) for f in found] == [(8, "error"), (9, "error")]


def damages(line: str) -> Iterator[list[str]]:
    """Ways in which a line gets spoilt: lost, doubled, cut short, too long, misspelt in each place."""
    head, _, last = line.rpartition(",")
    keyword, _, rest = line.partition(",")
    label, _, end = rest.partition(",")
    yield from ([], [line, line], [head], [f"{line},1"])
    yield from ([f"{keyword[1:]},{rest}"], [f"{keyword},{label}x,{end}"], [f"{keyword}, {rest}"])
    if keyword == "Parent" or "Label" in line or "Core" in line:  # other values are the adapter's
        yield [f"{head},{last}x"]


@pytest.mark.parametrize("core", [CMMCorePlus, UniMMCore])
def test_what_we_let_pass_the_core_loads(core: type[CMMCorePlus], tmp_path: Path) -> None:
    """Spoil each line of demo.cfg in several ways; where we find nothing wrong, the core must load it."""
    lines = (CONFIGS / "demo.cfg").read_text(encoding="utf-8").splitlines()
    mmc, path, missed = core(), tmp_path / "rig.cfg", []
    for i, line in enumerate(lines):
        for new in damages(line) if line and not line.startswith("#") else ():
            path.write_text("\n".join([*lines[:i], *new, *lines[i + 1 :]]), encoding="utf-8")
            findings = check(path)
            # A value left out may be meant (empty); only the adapter knows, so that is a warning.
            if errors(findings) or any("without a value" in f.message for f in findings):
                continue
            mmc.unloadAllDevices()
            try:
                mmc.loadSystemConfiguration(path)
            except Exception as error:  # noqa: BLE001 whatever the core refuses with
                missed.append(f"{new}: {error}")
    mmc.unloadAllDevices()
    assert missed == []


UNREADABLE = [
    (b"", "is empty"),
    (b"# a remark\n", "comments only"),
    (b"channels:\n  - BF\nrig: demo.cfg\n", "no Micro-Manager configuration: line 1 reads 'channels:'"),
    (b'{"Device": ["a", "b"]}', "no Micro-Manager configuration"),
    (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "binary file"),
    ("Device,Camera,DemoCamera,DCam".encode("utf-16"), "UTF-16"),
]


@pytest.mark.parametrize(("raw", "fragment"), UNREADABLE)
def test_what_is_no_configuration_is_refused(raw: bytes, fragment: str, tmp_path: Path) -> None:
    with pytest.raises(RigError, match=fragment) as raised:
        check(tmp_path, raw)
    assert isinstance(raised.value, LivestainError)
    assert str(tmp_path) in str(raised.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RigError, match="does not exist"):
        read_rig_file(tmp_path / "none.cfg")
    with pytest.raises(RigError, match="is a folder"):
        read_rig_file(tmp_path)


TEXTS = [
    ((HEAD + START + TAIL).encode("utf-8-sig"), 1, "error", "Write 'Property'"),
    (b"\xef\xbb\xbf# a remark\n" + (HEAD + START + TAIL).encode(), 1, "warning", "byte-order mark"),
    ((HEAD + START + TAIL + "ConfigGroup,A,5 µm,LED,State,1").encode("latin-1"), 18, "warning", "0xb5"),
    ((HEAD + START + TAIL).replace("\n", "\r").encode(), 1, "error", "carriage return"),
]


@pytest.mark.parametrize(("raw", "line", "severity", "fragment"), TEXTS)
def test_fault_of_the_text(raw: bytes, line: int, severity: str, fragment: str, tmp_path: Path) -> None:
    (found,) = check(tmp_path, raw)
    assert (found.line, found.severity) == (line, severity)
    assert fragment in str(found)


def test_python_devices_are_read_as_unimmcore_reads_them(tmp_path: Path) -> None:
    text = (
        "Property,Core,Initialize,0\n#py pyDevice,Cam,package.module,Camera\n"
        "Device,Wheel,DemoCamera,DWheel\n  Property,Core,Initialize,1  \n#py Property,Core,Camera,Cam\n"
        "ConfigGroup,Channel,BF,Wheel,State,0\n"
        "ConfigPixelSize,20x,Core,Galvo,\nPixelSize_um,20x,0.325\n#py Property,Cma,Gain,1\n#py Delay,Cam,5,\n"
    )
    findings = check(tmp_path, text)
    assert [(f.line, f.severity) for f in findings] == [(9, "error"), (10, "error")]
    rig = read_rig_file(tmp_path / "rig.cfg")
    assert rig.python_devices
    assert rig.roles == {"Camera": "Cam"}
    assert rig.devices["Cam"].library == "package.module"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_spoilt_file_is_checked_or_refused(data: st.DataObject) -> None:
    """Whatever is cut out of a sound file and put in its place: findings or a RigError, nothing else."""
    raw = (CONFIGS / "demo.cfg").read_bytes()
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, len(raw)))
    filling = data.draw(st.one_of(st.binary(max_size=30), st.text(",x1-\r\n# Label", max_size=60).map(str.encode)))
    with TemporaryDirectory() as folder:
        try:
            findings = check(Path(folder), raw[:start] + filling + raw[end:])
        except RigError:
            return
    assert [f.line for f in findings] == [f.line for f in sorted(findings, key=in_order)]


def test_finding_reads_as_a_sentence() -> None:
    finding = Finding(41, "error", "Device 'Camra' is never declared.", "Did you mean 'Camera'?")
    assert str(finding) == "line 41: error: Device 'Camra' is never declared. Did you mean 'Camera'?"
    assert str(Finding(None, "warning", "No pixel size.", "Add one.")) == "warning: No pixel size. Add one."


def test_one_finding_for_a_device_missed_on_many_lines(tmp_path: Path) -> None:
    lines = [f"ConfigGroup,Other,P{i},Prime,Gain,{i}" for i in range(20)]
    (found,) = check(tmp_path, HEAD + START + TAIL + "\n".join(lines))
    assert "lines 18, 19, 20, 21, 22, 23 and 14 more" in found.message


@pytest.mark.parametrize("core", [CMMCorePlus, UniMMCore])
def test_demo_configuration_loads_and_every_preset_applies(core: type[CMMCorePlus]) -> None:
    path = CONFIGS / "demo.cfg"
    rig = read_rig_file(path)
    assert check_rig_file(rig) == []
    assert list(rig.groups["Channel"]) == ["BF", "DAPI", "FITC", "Rhodamine", "Cy5"]
    mmc = core()
    mmc.loadSystemConfiguration(path)
    mmc.snapImage()
    assert (mmc.getImage().shape, mmc.getImage().dtype.name) == ((512, 512), "uint16")
    assert mmc.getImageBitDepth() == 16
    for group in ("Channel", "Objective"):
        for preset in mmc.getAvailableConfigs(group):
            mmc.setConfig(group, preset)
            assert mmc.getCurrentConfig(group) == preset
            if group == "Objective":
                assert mmc.getPixelSizeUm() == pytest.approx(rig.pixel_sizes_um[preset])
    mmc.unloadAllDevices()


def test_template_passes_the_check() -> None:
    rig = read_rig_file(CONFIGS / "template_real_rig.cfg")
    assert check_rig_file(rig) == []
    assert rig.roles["Camera"] == "Camera"
    assert rig.pixel_sizes_um == {"40x": 0.1625}


# Real rigs: file -> the errors (line, fragment). Every other file of the folder is sound.
FAULTY: dict[str, list[tuple[int | None, str]]] = {
    "Configurations__DeviceAdapterTest.cfg": [(None, "No camera")],
    "Configurations__ht-main_Zyla.cfg": [(None, "No camera")],
    "OPM_alignment_config.cfg": [(54, "'Propety'"), (87, "State 4 of 'ImageCameraCrop'")],
    "OPM_mmgr.cfg": [(59, "'Propety'"), (94, "State 4 of 'ImageCameraCrop'")],
    "archieved_configs__OPM_20250210.cfg": [
        (83, "'Z' is never declared"),
        (118, "no label '1-First-run'"),
        (125, "Did you mean '637nm'"),
    ],
    "archieved_configs__OPM_20250210_DPS.cfg": [(119, "no label '1-First-run'")],
    "archieved_configs__OPM_20250218.cfg": [(67, "'Propety'")],
    "archieved_configs__OPM_20250304.cfg": [(67, "'Propety'")],
    "archieved_configs__OPM_20250312.cfg": [(59, "'Propety'"), (93, "State 4 of 'ImageCameraCrop'")],
    "archieved_configs__OPM_demo.cfg": [
        (85, "'1-First-run'"),
        (86, "'2-Before-every-acq'"),
        (91, "'635nm'"),
        (101, "Did you mean '1-Before-each-ZYX'"),
        (102, "Did you mean '2-Before-each-TZYX'"),
    ],
}


@needs_real
def test_files_of_real_rigs() -> None:
    files = sorted(REAL.glob("*/*.cfg"))
    assert len(files) >= 23
    for path in files:
        found = [f for f in check(path) if f.severity == "error"]
        expected = FAULTY.get(path.name, [])
        assert [f.line for f in found] == [line for line, _ in expected], (path.name, errors(found))
        for finding, (_, fragment) in zip(found, expected, strict=True):
            assert fragment in str(finding), path.name


@needs_real
def test_faults_of_a_real_demo_rig_are_what_the_core_trips_over(loads: Callable[[str], bool]) -> None:
    """The file loads, but its faulty presets cannot be applied, and all others can."""
    path = next(REAL.glob("*/*OPM_demo.cfg"))
    rig, faulty = read_rig_file(path), {f.line for f in check(path)}
    core = CMMCorePlus()
    core.loadSystemConfiguration(path)
    for group, presets in rig.groups.items():
        for preset, lines in presets.items():
            if faulty & {x.line for x in lines}:
                with pytest.raises(RuntimeError, match="Cannot set property"):
                    core.setConfig(group, preset)
            else:
                core.setConfig(group, preset)
    core.unloadAllDevices()
