"""The arrays of one archive, read with h5py, and what the catalogue's formulas make of them: an oracle for every number."""

import re

import h5py
import numpy as np

#: A number in a text; subscripts (λ₁) are none.
NUMBER = re.compile(r"[−+-]?\d[\d,]*(?:\.\d+)?(?:e[−-]?\d+)?")


def numbers(text):
    """The numbers that stand in a text, in order."""
    found = re.sub(r"(?<=[\d.])[,.](?=\s|$)", "", text)  # commas and full stops of the sentence
    return [float(n.replace(",", "").replace("−", "-")) for n in NUMBER.findall(found)]


def sig(value, digits=3):
    """Rounded to significant digits."""
    return float(f"{value:.{digits}g}")


class Raw:
    """The arrays of one file, and what the catalogue's formulas make of them."""

    def __init__(self, path):
        with h5py.File(path) as file:
            self.steps, self.rates = file["step"][()], file["learning_rate"][:, 0]
            self.training_loss, self.seconds = file["training_loss"][()], file["snapshot_seconds"][()]
            self.at = {name: data[()] for name, data in file["probes/train"].items() if isinstance(data, h5py.Dataset)}
            kept = file["probes/train"].get("inputs")
            self.inputs = (
                None if kept is None else np.asarray(kept[next(iter(kept))] if hasattr(kept, "keys") else kept)
            )
        self.values, self.count = self.at["eigenvalues"], len(self.at["targets"])
        self.modes = self.values.shape[1]
        self.coefficients = {f: self.at[f"{f}_coefficients"][:, :, 0] for f in ("target", "output", "residual")}

    def energy(self, function, k):
        squares = self.coefficients[function] ** 2
        return squares[:, :k].sum(axis=1) / squares.sum(axis=1)

    @property
    def loss(self):
        return np.sum(self.coefficients["residual"] ** 2, axis=1) / (2 * self.count)

    @property
    def effective_rank(self):
        share = self.values / self.values.sum(axis=1, keepdims=True)
        return np.exp(-np.sum(share * np.log(share), axis=1))

    @property
    def bound(self):
        return 2 * self.count / self.rates

    def stored(self, name, column=...):
        return self.at[name][:, column] if column is not ... else self.at[name]

    @property
    def velocity(self):
        """(S,) as stored."""
        return self.at["kernel_angular_velocity"]

    def ledger(self):
        """(S, 3) shares of the residual, and (S, layers) of kernel flow."""
        m = self.coefficients["residual"]
        norm = np.sum(m**2, axis=1)
        flow, rest = self.at["ledger_kernel_flow"][..., 0], self.at["ledger_remainder"][..., 0]
        curvature = self.at["ledger_curvature"][..., 0]
        parts = [-np.sum(x * m, axis=1) / norm for x in (flow.sum(axis=2), rest.sum(axis=2), curvature)]
        return np.stack(parts, axis=1), -np.einsum("sil,si->sl", flow, m) / norm[:, None]
