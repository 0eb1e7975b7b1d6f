"""The same networks as JAX functions of (parameters, inputs), in the layout JAX prefers (NHWC)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

STAGES = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))


def linear(p: Any, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def conv(p: Any, name: str, x: Any, stride: int = 1, pad: int = 0) -> Any:
    layout = ("NHWC", "HWIO", "NHWC")
    out = lax.conv_general_dilated(x, p[f"{name}.weight"], (stride, stride), [(pad, pad)] * 2, dimension_numbers=layout)
    return out + p[f"{name}.bias"] if f"{name}.bias" in p else out


def average(x: Any, size: int) -> Any:
    window = (1, size, size, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / size**2


def flatten(x: Any) -> Any:
    """In torch's order, channels first."""
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


def mlp(leak: float) -> Any:
    def network(p: Any, x: Any) -> Any:
        layers = sorted({int(name.split(".")[0]) for name in p})
        for layer in layers[:-1]:
            x = linear(p, str(layer), x)
            x = jnp.where(x > 0, x, leak * x)
        return linear(p, str(layers[-1]), x)

    return network


def lenet(p: Any, x: Any) -> Any:
    x = average(jax.nn.relu(conv(p, "0", x, pad=2)), 2)
    x = flatten(average(jax.nn.relu(conv(p, "3", x)), 2))
    return linear(p, "11", jax.nn.relu(linear(p, "9", jax.nn.relu(linear(p, "7", x)))))


def resnet18(buffers: Any) -> Any:
    def norm(p: Any, name: str, x: Any) -> Any:
        scale = 1.0 / np.sqrt(buffers[f"{name}.running_var"] + 1e-5)
        return (x - buffers[f"{name}.running_mean"]) * scale * p[f"{name}.weight"] + p[f"{name}.bias"]

    def network(p: Any, x: Any) -> Any:
        x = jax.nn.relu(norm(p, "1", conv(p, "0", x, pad=1)))
        for i, (_, stride) in enumerate(STAGES):
            block = str(i + 3)
            y = jax.nn.relu(norm(p, f"{block}.norm1", conv(p, f"{block}.conv1", x, stride, 1)))
            y = norm(p, f"{block}.norm2", conv(p, f"{block}.conv2", y, 1, 1))
            if f"{block}.short.0.weight" in p:
                x = norm(p, f"{block}.short.1", conv(p, f"{block}.short.0", x, stride))
            x = jax.nn.relu(x + y)
        return linear(p, "13", flatten(average(x, 4)))

    return network


def transformer(buffers: Any) -> Any:
    def norm(p: Any, name: str, x: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        scale = lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return centred * scale * p[f"{name}.weight"] + p[f"{name}.bias"]

    def network(p: Any, x: Any) -> Any:
        x = linear(p, "embed", x) + buffers["position"]
        n, t, d = x.shape
        for i in range(4):
            layer = f"layers.{i}"
            h = norm(p, f"{layer}.norm1", x)
            q, k, v = (
                linear(p, f"{layer}.{part}", h).reshape(n, t, 4, d // 4).transpose(0, 2, 1, 3)
                for part in ("query", "key", "value")
            )
            weights = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(d // 4)), axis=-1)
            x = x + linear(p, f"{layer}.out", (weights @ v).transpose(0, 2, 1, 3).reshape(n, t, d))
            h = jax.nn.gelu(linear(p, f"{layer}.up", norm(p, f"{layer}.norm2", x)), approximate=False)
            x = x + linear(p, f"{layer}.down", h)
        return linear(p, "head", norm(p, "norm", x).mean(1))

    return network


def load(problem: Any) -> tuple[Any, dict[str, Any], Any]:
    """(network, parameters, inputs); the network is told by the workload's name."""
    order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    parameters = {
        name: jnp.asarray(problem.weights[name].transpose(order[problem.weights[name].ndim]))
        for name in problem.trainable
    }
    buffers = {name: value for name, value in problem.weights.items() if name not in problem.trainable}
    x = problem.inputs.transpose(0, 2, 3, 1) if problem.inputs.ndim == 4 else problem.inputs
    networks = {
        "M1": mlp(0.0),
        "M2": mlp(0.01),
        "C1": lenet,
        "C1t": lenet,
        "V0": lenet,
        "C2": resnet18(buffers),
        "T1": transformer(buffers),
    }
    return networks[problem.name], parameters, jnp.asarray(x)
