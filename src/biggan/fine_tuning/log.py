"""What became of the sources: for the log at the first start, and for the model's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from biggan.fine_tuning.classes import ClassOrigin
from biggan.fine_tuning.freezing import FineTuningConfig
from biggan.weights.download import without_secrets
from biggan.weights.files import LoadedModel
from biggan.weights.load import is_address

_LISTED = 20  # classes that the log names one by one


@dataclass(frozen=True)
class NetworkLog:
    """What became of one network's source."""

    network: str
    source: str
    """What the recipe calls it."""
    loaded: LoadedModel[Any]
    kept: Sequence[str]
    """Tensors that are the source's to the last bit."""
    remade: Mapping[str, str]
    """Why the other tensors are not, by name; also those that the source alone has."""
    classes: Sequence[ClassOrigin]
    """What each class starts as; empty without classes, or if the source has none."""
    frozen: Sequence[str]
    """Parameters that training will not move."""

    def to_dict(self) -> dict[str, Any]:
        """What a model's card says of it, as JSON can hold it."""
        return {
            "source": without_folder(self.source),
            "name": self.loaded.description.name,
            "sha256": self.loaded.sha256,
            "licence": self.loaded.description.licence,
            "tensors_kept": len(self.kept),
            "tensors_remade": self._by_reason(),
            "classes": [str(origin) for origin in self.classes],
            "parameters_frozen": len(self.frozen),
        }

    def lines(self, before: NetworkLog | None) -> list[str]:
        """For the log; classes that start as in `before` are not listed again."""
        about, sha256 = self.loaded.description, self.loaded.sha256
        licence = f"; licence: {about.licence}" if about.licence else ""
        lines = [
            f"from {self.source} ({about.name}, sha256 {sha256[:12]}...{licence})",
            f"{len(self.kept)} tensors kept",
        ]
        lines += [f"{reason}: {names}" for reason, names in self._by_reason().items()]
        if self.frozen:
            lines.append(f"{len(self.frozen)} parameters frozen: {_some(self.frozen)}")
        if before is not None and self.classes and self.classes == before.classes:
            lines.append(f"classes start as those of the {before.network}")
        else:
            # Classes that were not found first: there a better name may help.
            ordered = sorted(self.classes, key=lambda origin: not origin.reason)
            lines += [f"class {origin}" for origin in ordered[:_LISTED]]
            if len(ordered) > _LISTED:
                lines.append(f"and {len(ordered) - _LISTED} more classes")
        return [f"{self.network}: {line}" for line in lines]

    def _by_reason(self) -> dict[str, str]:
        reasons: dict[str, list[str]] = {}
        for name, reason in self.remade.items():
            reasons.setdefault(reason, []).append(name)
        return {reason: _some(names) for reason, names in reasons.items()}


def log_lines(networks: Sequence[NetworkLog]) -> list[str]:
    """What became of the sources, for the log."""
    pairs = zip(networks, (None, *networks), strict=False)
    return [line for network, before in pairs for line in network.lines(before)]


def card(networks: Sequence[NetworkLog]) -> dict[str, Any]:
    """The same for the model's card, by network."""
    return {network.network: network.to_dict() for network in networks}


def without_folder(source: str) -> str:
    """A source without local folders and without the secrets of an address, for a shared file."""
    if is_address(source) and not source.lower().startswith("file:"):
        return without_secrets(source)
    return Path(source).expanduser().resolve().name


def card_table(tuning: FineTuningConfig) -> dict[str, Any]:
    """A recipe's table [fine_tuning] for the model's card: its sources `without_folder`."""
    sources = tuning.sources.items()
    return asdict(tuning) | {network: without_folder(source) for network, source in sources}


def _some(names: Sequence[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"
