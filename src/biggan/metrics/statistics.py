"""Mean and covariance of features, in one pass, mergeable, and their files.

Second moments are taken about the mean and merged as in Chan, Golub and LeVeque 1979, "Updating
Formulae and a Pairwise Algorithm for Computing Sample Variances", so that features far from zero
lose no digits.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biggan.atomic_write import write_atomically
from biggan.errors import InputError
from biggan.metrics.feature_sets import check_features
from biggan.weights.files import FORMAT, load_tensors, save_tensors

_KIND = "feature statistics"
_ROWS_AT_ONCE = 1024  # 16 MiB at 2048 dimensions
_NEGATIVE = 1e-3  # of a covariance's largest eigenvalue: beyond rounding, even in float16


@dataclass(frozen=True)
class FeatureSource:
    """An extractor's `name`, `sha256` and `resize`: only features of the same source compare."""

    extractor: str
    sha256: str
    resize: str

    def __str__(self) -> str:
        return f"{self.extractor} (sha256 {self.sha256[:12]}, resize {self.resize})"


class FeatureStatistics:
    """Mean and covariance of features, updated batch by batch, in float64 on the CPU.

    Attributes:
        dim: Width of the features.
        count: How many samples there were; None if a file of others did not say.
        source: What made them; None if unknown.
        provenance: What else a file says of them, as JSON.
    """

    def __init__(
        self,
        dim: int,
        source: FeatureSource | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.dim = dim
        self.source = source
        self.provenance = dict(provenance or {})
        self.count: int | None = 0
        self._mean = torch.zeros(dim, dtype=torch.float64)
        # Sum over the samples of (x - mean) (x - mean)^T; the covariance if the count is unknown.
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)

    @property
    def mean(self) -> Tensor:
        """float64 (dim,); zeros before the first sample."""
        return self._mean.clone()

    def covariance(self) -> Tensor:
        """The unbiased estimate, over count - 1, as `numpy.cov` has it: float64 (dim, dim).

        Raises:
            InputError: There are fewer than 2 samples.
        """
        if self.count is not None and self.count < 2:
            raise InputError(f"a covariance needs at least 2 images, not {self.count}")
        symmetric = self._scatter + self._scatter.T
        return symmetric.div_(2 if self.count is None else 2 * (self.count - 1))

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Add samples, real numbers (N, dim) on any device.

        Raises:
            InputError: They are of another width, or NaN or infinite, and none was added; or the
                count is unknown.
        """
        check_features(features, "features", at_least=0)
        self._check_width(features.shape[1])
        for rows in features.split(_ROWS_AT_ONCE):
            rows = rows.to("cpu", torch.float64)
            mean = rows.mean(0)
            self._add(len(rows), mean, rows - mean)

    @torch.no_grad()
    def merge(self, other: FeatureStatistics) -> None:
        """Add the samples of other statistics.

        Raises:
            InputError: They are of another width or source, or one of the counts is unknown.
        """
        self._check_width(other.dim)
        if self.source != other.source:
            raise _different(self.source, other.source)
        no_rows = torch.empty(0, self.dim, dtype=torch.float64)
        self._add(other._known_count(), other._mean, no_rows)
        self._scatter += other._scatter

    def _add(self, count: int, mean: Tensor, centred: Tensor) -> None:
        """Add samples by their mean and the rows, (n, dim), whose products sum to their scatter."""
        before = self._known_count()
        if count == 0:
            return
        total = before + count
        shift = mean - self._mean
        # The distance of the two means adds to the scatter like one more centred sample.
        between = shift * (before * count / total) ** 0.5
        rows = torch.cat([centred, between[None]])
        self._scatter.addmm_(rows.T, rows)
        self._mean += shift * (count / total)
        self.count = total

    def _check_width(self, dim: int) -> None:
        if dim != self.dim:
            raise InputError(f"features have width {dim}, these statistics {self.dim}")

    def _known_count(self) -> int:
        if self.count is None:
            raise InputError(
                "these statistics do not state their number of images: they can be compared, but "
                "not continued, merged or saved"
            )
        return self.count

    def state_dict(self) -> dict[str, Tensor]:
        """All but source and provenance, to be continued later; the tensors are not copied.

        Raises:
            InputError: The count is unknown.
        """
        count = torch.tensor(self._known_count())
        return {"count": count, "mean": self._mean, "scatter": self._scatter}

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Tensor],
        source: FeatureSource | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> FeatureStatistics:
        """Statistics as `state_dict` gave them; the tensors are copied.

        Raises:
            InputError: They do not fit each other, or hold NaN or infinite values.
        """
        count, mean, scatter = state["count"], state["mean"], state["scatter"]
        fits = count.ndim == 0 and mean.ndim == 1 and scatter.shape == (len(mean), len(mean))
        if not fits or count < 0:
            raise InputError(
                f"count {tuple(count.shape)}, mean {tuple(mean.shape)} and scatter "
                f"{tuple(scatter.shape)} are not those of feature statistics"
            )
        if not (mean.isfinite().all() and scatter.isfinite().all()):
            raise InputError("the mean or the scatter of these statistics is NaN or infinite")
        statistics = cls(len(mean), source, provenance)
        statistics.count = int(count)
        statistics._mean.copy_(mean)
        statistics._scatter.copy_(scatter)
        return statistics

    def save(self, path: Path) -> str:
        """Write a safetensors file and return the sha256 of its contents.

        Raises:
            InputError: The file cannot be written, or the count is unknown.
        """
        source = asdict(self.source) if self.source else None
        header = {"kind": _KIND, "source": source, "provenance": self.provenance}
        metadata = {"format": FORMAT, "header": json.dumps(header)}
        return save_tensors(path, metadata, self.state_dict())

    def save_npz(self, path: Path) -> None:
        """Write mean and covariance alone, as pytorch-fid reads them: `mu` and `sigma`.

        Raises:
            InputError: The file cannot be written, or there are fewer than 2 samples.
        """
        contents = io.BytesIO()
        np.savez(contents, mu=self._mean.numpy(), sigma=self.covariance().numpy())
        write_atomically(path, contents.getvalue())


def check_same_source(a: FeatureStatistics, b: FeatureStatistics) -> None:
    """Refuse to compare features of different extractors, resizes or widths."""
    if a.source and b.source and a.source != b.source:
        raise _different(a.source, b.source)
    if a.dim != b.dim:
        raise InputError(
            f"the features are {a.dim} and {b.dim} wide: use the same extractor for both"
        )


def _different(a: FeatureSource | None, b: FeatureSource | None) -> InputError:
    return InputError(
        f"the features are of different sources, {a or 'unknown'} and {b or 'unknown'}: use the "
        "same extractor and resize for both"
    )


def load_statistics(path: Path) -> FeatureStatistics:
    """Read statistics from a file of ours, or from an .npz file of pytorch-fid.

    The latter holds the mean and the covariance alone (`mu`, `sigma`): count and source are None,
    so that it can be compared with, but not continued.

    Raises:
        InputError: The file is missing, cut short, damaged, or holds something else.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    is_npz = start == b"PK" or path.suffix.lower() == ".npz"  # one that is cut short, too
    return _load_npz(path) if is_npz else _load_own(path)


def _load_own(path: Path) -> FeatureStatistics:
    metadata, tensors, _ = load_tensors(path)
    try:
        header = json.loads(metadata["header"])
        kind = header["kind"]
        if kind == _KIND:
            source = FeatureSource(**header["source"]) if header["source"] else None
            provenance = dict(header["provenance"])
            return FeatureStatistics.from_state_dict(tensors, source, provenance)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RecursionError):
        raise InputError(f"{path} is a file of biggan, but contains no {_KIND}") from None
    raise InputError(f"{path} holds a {str(kind)[:50]}, not {_KIND}")


def _load_npz(path: Path) -> FeatureStatistics:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not a whole .npz file: it may be cut short: download it again")
    try:
        # Opened here, because what numpy opens stays open where it finds the file damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = list(arrays)
            # A member that is not an array comes as bytes.
            moments = {name: np.asarray(arrays[name]) for name in ("mu", "sigma") if name in found}
    except Exception as error:  # zipfile and NumPy raise many kinds
        raise InputError(
            f"{path} is not a whole .npz file ({error}); it may be cut short: download it again"
        ) from None
    if len(moments) < 2:
        raise InputError(
            f"{path} holds {', '.join(found)[:80] or 'nothing'}, not the mu and sigma of "
            "feature statistics"
        )
    if not _are_moments(**moments):
        raise InputError(f"{path}: its mu and sigma are not a mean and covariance of features")
    mean, covariance = (torch.from_numpy(m.astype(np.float64)) for m in moments.values())
    statistics = FeatureStatistics(len(mean))
    statistics.count, statistics._mean, statistics._scatter = None, mean, covariance
    return statistics


def _are_moments(mu: np.ndarray[Any, Any], sigma: np.ndarray[Any, Any]) -> bool:
    return bool(
        mu.dtype.kind == sigma.dtype.kind == "f"
        and mu.ndim == 1
        and len(mu) > 0
        and sigma.shape == (len(mu), len(mu))
        and np.isfinite(mu).all()
        and np.isfinite(sigma).all()
        and np.allclose(sigma, sigma.T, atol=1e-6 * float(np.abs(sigma).max()))
        and (sigma.diagonal() >= 0).all()
        and (eigenvalues := np.linalg.eigvalsh(sigma.astype(np.float64)))[0]
        >= -_NEGATIVE * eigenvalues[-1]
    )
