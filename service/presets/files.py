"""Which file each product picture of a command becomes, when a template names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from boothsam.runtime.errors import BoothsamError, OptionError
from boothsam.service.outputs import FORMATS, Task
from boothsam.service.presets.check import Finding, check_name
from boothsam.service.presets.naming import Identity, Template, View, gtin_in, plan_names, turntable_view
from boothsam.service.presets.preset import Preset
from boothsam.service.presets.rules import MUST

Named = tuple[Path, ...] | BoothsamError
_FRAME = "_{n:03}"


@dataclass(frozen=True)
class Naming:
    """How pictures are named.

    Attributes:
        template: see `naming.Template`.
        sku, gtin: of all photos; an empty gtin is looked for in each photo's name.
        view: GS1's four characters of all photos.
        turn: "clockwise" or "counterclockwise" if the photos are one full turn of a table, in order; else empty.
    """

    template: Template
    sku: str = ""
    gtin: str = ""
    view: View = field(default_factory=View)
    turn: str = ""

    @classmethod
    def choose(
        cls,
        name: str | None,
        preset: Preset | None,
        sku: str | None = None,
        gtin: str | None = None,
        view: str | None = None,
        turn: str | None = None,
    ) -> Naming | None:
        """What the options say; None where the photos' own names are kept.

        Raises:
            OptionError: a wrong template or number, or an option that the template does not use.
        """
        text = name if name is not None else preset.make.name if preset is not None else "{stem}"
        template = Template(text)
        views = {"type", "face", "angle", "state"} & set(template.fields)
        uses = {
            "--sku": (sku, "sku" in template.fields, "{sku}"),
            "--gtin": (gtin, {"gtin", "gtin14"} & set(template.fields), "{gtin14}"),
            "--view": (view, views, "{type}{face}{angle}{state}"),
            "--turntable": (turn, views or template.numbered, "{type}{face}{angle}{state} or {n}"),
        }
        for option, (value, used, fields) in uses.items():
            if value and not used:
                raise OptionError(
                    f"{option} is given, but the names {text!r} do not use it", hint=f"--name with {fields}"
                )
        if view is not None and turn is not None:
            raise OptionError(
                "--view and --turntable exclude each other", hint="a turntable's frames have their own view"
            )
        if template.text == "{stem}":
            return None
        chosen = View() if view is None else _view(view)
        return cls(template, sku or "", gtin or "", chosen, turn or "")

    def plan(
        self, photos: Sequence[Path], counts: Sequence[int | BoothsamError], folder: Path, ending: str, preset: str
    ) -> list[Named]:
        """The files of each photo's products in the folder, or why the photo cannot be named.

        Raises:
            OutputError: two pictures would have one name.
        """
        seen: Counter[str] = Counter()
        found: list[list[Identity] | BoothsamError] = []
        for index, (photo, count) in enumerate(zip(photos, counts, strict=True)):
            if isinstance(count, BoothsamError):
                found.append(count)
                continue
            try:
                found.append(self._identities(photo, count, index, len(photos), preset, seen))
            except OptionError as error:
                found.append(error)
        named = [identity for entry in found if not isinstance(entry, BoothsamError) for identity in entry]
        frames = self.template if self.template.numbered else Template(self.template.text + _FRAME)
        spins = iter(plan_names(frames, [one for one in named if _is_frame(one)], folder, ending))
        stills = iter(plan_names(self.template, [one for one in named if not _is_frame(one)], folder, ending))
        return [
            entry
            if isinstance(entry, BoothsamError)
            else tuple(next(spins if _is_frame(one) else stills) for one in entry)
            for entry in found
        ]

    def _identities(
        self, photo: Path, count: int, index: int, photos: int, preset: str, seen: Counter[str]
    ) -> list[Identity]:
        gtin = self.gtin or (gtin_in(photo.stem) if {"gtin", "gtin14"} & set(self.template.fields) else "")
        view = turntable_view(index, photos, self.turn) if self.turn else self.view
        identities = []
        for _ in range(count):
            product = self.sku or (gtin.zfill(14) if gtin else photo.stem)
            seen[product] += 1
            n = index + 1 if self.turn else seen[product]
            identity = Identity(photo.stem, self.sku, gtin, n, view, preset)
            self.template.name(identity)  # a photo that cannot be named must not stop the others
            identities.append(identity)
        return identities


def _is_frame(identity: Identity) -> bool:
    """Whether it is a frame of a spin, which has a number in its name."""
    return identity.view.type == "E"


def _view(text: str) -> View:
    if len(text) != 4:
        raise OptionError(
            f"--view {text!r}; expected GS1's four characters: type, face, angle, state", hint="--view A1N1"
        )
    return View(*text)


def checked_names(tasks: Sequence[Task], format: str, preset: Preset) -> tuple[list[Task], list[tuple[Path, Finding]]]:
    """The tasks, with an error where a name breaks a rule that must be kept; and the advice that names go against."""
    result: list[Task] = []
    advice: list[tuple[Path, Finding]] = []
    for task in tasks:
        for output in task.outputs if task.error is None else ():
            for finding in check_name(output.name, format, preset):
                if finding.passed is not False:
                    continue
                if finding.level == MUST and task.error is None:
                    message = f"{output.name} breaks a rule of {preset.name}: {finding}"
                    task = replace(task, error=OptionError(message, hint=_rename(finding, format)))
                elif finding.level != MUST:
                    advice.append((output, finding))
        result.append(task)
    return result, advice


def _rename(finding: Finding, format: str) -> str:
    if finding.rule == "ending":
        return f"end OUT with {FORMATS[format]}"
    return "-o FOLDER/ --gtin GTIN" if finding.rule == "gtin_name" else "-o FOLDER/ --name TEMPLATE --sku SKU"
