import dataclasses
import resource

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import biggan
from biggan.models import count_parameters
from biggan.nn import SpectralNormConv2d, convolve_average_pool, upsample_convolve
from biggan.training import plan as plan_module
from biggan.training.adaptive_augmentation import COLUMNS
from biggan.training.checkpoint import CheckpointDirectory
from biggan.training.config import TrainConfig
from biggan.training.plan import _CHECKPOINTS, Meter, _older_checkpoints, make_plan, plan_table
from biggan.training.state import TrainState
from biggan.training.step import discriminator_step, generator_step
from runs import simulated_once
from tiny import ONE_STAGE

SMALL = {
    "preset": "biggan-32",
    "batch_size": 8,
    "checkpoint_every": 3,
    "total_steps": 6,
    **ONE_STAGE,
}
CIFAR = {"preset": "biggan-32", "batch_size": 16, "orthogonal": 0.0}


@pytest.fixture(scope="module", autouse=True)
def _simulated_once():
    with simulated_once():
        yield


@pytest.fixture(scope="module")
def tiny():
    return TrainConfig.from_dict(SMALL).fitted(2)


@pytest.fixture(scope="module")
def plan(tiny):
    return make_plan(tiny, 16)


def inputs(config):
    generator = config.generator
    shape = (config.batch_size, generator.image_channels, *(2 * [generator.resolution]))
    labels = torch.zeros(config.batch_size, dtype=torch.int64)
    return (torch.rand(shape) * 2 - 1, labels), (torch.randn(len(labels), generator.z_dim), labels)


def test_one_convolution_by_hand():
    layer = SpectralNormConv2d(5, 7, 3)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.u)
    x = torch.randn(2, 5, 8, 8, requires_grad=True)
    with Meter() as meter:
        y = layer(x)
    matrix = 5 * 7 * 9
    # A product with the matrix's transpose, and one with the matrix, which gives sigma too.
    assert meter.flops == 2 * (2 * 8 * 8 * matrix) + 2 * 2 * matrix
    with meter:
        meter.begin()
        y.sum().backward()
    # One convolution for the gradient of x, one for that of the weight.
    assert meter.flops == 2 * 2 * (2 * 8 * 8 * matrix)


def test_a_discriminator_update_at_cifar_size_by_hand():
    # So narrow that every convolution is a direct one.
    def conv(inputs, outputs, size, kernel=3):
        return 2 * inputs * outputs * kernel**2 * size**2

    def counted(function, *tensors):
        with FlopCounterMode(display=False) as counter:
            function(*tensors, None)
        return counter.get_total_flops()

    def attention(width):
        projections = conv(width, width * (1 / 8 + 1 / 8 + 1 / 2 + 1 / 2), 16, kernel=1)
        return projections + 2 * 256 * 64 * (width / 8 + width / 2)

    wide, narrow = torch.randn(64, 64, 3, 3), torch.randn(80, 80, 3, 3)
    generator = 2 * 20 * 64 * 16 + attention(64) + conv(64, 3, 32)  # z of 80 in chunks of 20
    for size in (4, 8, 16):
        generator += counted(upsample_convolve, torch.randn(16, 64, size, size), wide) / 16
        generator += conv(64, 64, 2 * size) + conv(64, 64, size, kernel=1)
        generator += 2 * 2 * 2 * (20 + 128) * 64  # gain and bias of two BatchNorms
    from_image = conv(3, 80, 32) + conv(3, 80, 16, kernel=1)
    discriminator = attention(80) + conv(80, 80, 16) + conv(80, 80, 8, kernel=1)
    discriminator += 4 * conv(80, 80, 8) + 2 * 80
    for size in (32, 16):
        images = torch.randn(32, 80, size, size)
        discriminator += counted(convolve_average_pool, images, narrow) / 32

    # Backward takes twice as much as forward, but of the images no gradient is needed, and
    # attention's logits are computed anew.
    logits = 2 * 256 * 64 * 80 / 8
    expected = 16 * generator + 32 * (3 * discriminator + 2 * from_image + logits)
    narrower = {"generator": {"channels": 16}, "discriminator": {"channels": 40}}
    plan = make_plan(TrainConfig.from_dict({**CIFAR, **narrower}), 50_000)
    # What is left out here: spectral normalization.
    assert expected < plan["d_update_flops"] < 1.02 * expected


@pytest.mark.parametrize("family", ["biggan", "biggan-deep"])
def test_operations_are_those_of_a_real_step(tiny, family):
    config = dataclasses.replace(tiny, generator=tiny.generator.updated({"family": family}))
    plan = make_plan(config, 16)
    state = TrainState.create(config, torch.device("cpu"))
    real, _ = inputs(config)
    with Meter() as meter:
        meter.begin()
        discriminator_step(state, real, config)
        assert plan["d_update_flops"] == meter.flops
        meter.begin()
        generator_step(state, config)
        assert plan["g_update_flops"] == meter.flops
    # torch's counter leaves out power iteration, no small part of so small networks, and attention.
    with FlopCounterMode(display=False) as counter:
        generator_step(state, config)
    assert 0.8 * plan["g_update_flops"] < counter.get_total_flops() < plan["g_update_flops"]
    assert plan["step_flops"] == 2 * plan["d_update_flops"] + plan["g_update_flops"]


def test_memory_and_disk_are_those_of_a_real_state(tiny, plan, tmp_path):
    assert plan["generator_parameters"] == count_parameters(tiny.generator)
    assert plan["discriminator_parameters"] == count_parameters(tiny.discriminator)
    state = TrainState.create(tiny, torch.device("cpu"))
    parameters = plan["generator_parameters"] + plan["discriminator_parameters"]
    networks = sum(tensor.nbytes for tensor in state.tensors().values())
    assert plan["weights_bytes"] == networks
    assert plan["gradients_bytes"] == 4 * parameters
    real, latents = inputs(tiny)
    assert plan["batch_bytes"] == sum(tensor.nbytes for tensor in (*real, latents[0], latents[1]))
    discriminator_step(state, real, tiny)
    generator_step(state, tiny)
    moments = sum(tensor.nbytes for tensor in state.tensors().values()) - networks
    assert plan["moments_bytes"] == moments > 8 * parameters
    path = CheckpointDirectory(tmp_path).save(state, tiny, "")
    assert plan["checkpoint_bytes"] == networks + moments
    assert plan["checkpoint_bytes"] < path.stat().st_size < plan["checkpoint_bytes"] + 100_000
    assert plan["run_bytes"] > 3 * plan["checkpoint_bytes"]


def test_activations_are_what_autograd_keeps(tiny):
    """Against torch's own hooks, which are told of every tensor that a forward pass saves."""
    config = dataclasses.replace(tiny, batch_size=32)
    plan = make_plan(config, 16)
    state = TrainState.create(config, torch.device("cpu"))
    _, (z, labels) = inputs(config)
    weights = {tensor.untyped_storage().data_ptr() for tensor in state.tensors().values()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    state.discriminator.requires_grad_(False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = -state.discriminator(state.generator(z, labels), labels).mean()
    assert plan["g_activations_bytes"] == pytest.approx(sum(kept.values()), rel=0.05)
    assert loss.requires_grad
    static = sum(plan[f"{part}_bytes"] for part in ("weights", "gradients", "moments", "batch"))
    for name in ("d", "g"):
        peak = plan[f"{name}_peak_bytes"]
        activations = plan[f"{name}_activations_bytes"]
        assert static < peak
        assert activations < peak < static + 2 * activations


def test_memory_is_counted_by_storage_until_its_last_tensor_is_gone():
    with Meter() as meter:
        a = torch.zeros(100)
        view = a.view(10, 10)
        assert meter.live == 400
        b = view + 1
        assert (meter.live, meter.peak) == (800, 800)
        del a
        assert meter.live == 800
        del view
        b.mul_(2)
        assert (meter.live, meter.peak) == (400, 800)
        meter.begin()
        assert meter.peak == 400


def test_micro_batches_and_processes_take_less_memory_for_the_same_arithmetic(tiny):
    whole = make_plan(dataclasses.replace(tiny, batch_size=48), 96)
    parts = make_plan(dataclasses.replace(tiny, batch_size=48, accumulation=3), 96)
    shared = make_plan(dataclasses.replace(tiny, batch_size=48), 96, processes=3)
    assert (parts["micro_batch"], shared["micro_batch"], whole["micro_batch"]) == (16, 16, 48)
    assert parts["d_update_flops"] == pytest.approx(whole["d_update_flops"], rel=0.02)
    assert parts["g_update_flops"] == pytest.approx(whole["g_update_flops"], rel=0.02)
    assert shared["d_update_flops"] == pytest.approx(whole["d_update_flops"], rel=0.02)
    kept = [values["g_activations_bytes"] for values in (parts, shared, whole)]
    assert kept[0] == kept[1] < kept[2] / 2
    assert shared["g_peak_bytes"] < parts["g_peak_bytes"] < whole["g_peak_bytes"]
    assert parts["batch_bytes"] == whole["batch_bytes"] == 3 * shared["batch_bytes"]
    two = make_plan(dataclasses.replace(tiny, batch_size=32, accumulation=2), 96)
    waiting = parts["batch_bytes"] - two["batch_bytes"]  # a third micro-batch waits for its turn
    assert parts["d_peak_bytes"] - two["d_peak_bytes"] == waiting > 0
    assert parts["g_peak_bytes"] - two["g_peak_bytes"] == waiting
    with pytest.raises(biggan.InputError, match="batch_size 8 .* 3 processes .*multiple of 3"):
        make_plan(tiny, 16, processes=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"checkpoint_activations": True},
        {"fine_tuning": {"generator": "x", "freeze_generator": 1}},
    ],
)
def test_what_a_recipe_saves_is_seen(tiny, plan, changes):
    config = TrainConfig.from_dict({**SMALL, **changes}).fitted(2)
    less = make_plan(config, 16)
    assert less["g_peak_bytes"] < plan["g_peak_bytes"]
    assert less["g_activations_bytes"] < plan["g_activations_bytes"]
    frozen = "fine_tuning" in changes
    assert (less["gradients_bytes"] < plan["gradients_bytes"]) == frozen
    assert (less["moments_bytes"] < plan["moments_bytes"]) == frozen


def test_what_disturbs_the_discriminator_is_part_of_the_batch(plan):
    """And can be planned beside every other addition to the steps."""
    ada = {"augmentation": {"kind": "ada"}, "lecam": {"strength": 0.3}, "compile": True}
    noise = {"instance_noise": {"std": 0.1}}
    config = TrainConfig.from_dict({**SMALL, **ada, **noise}).fitted(2)
    drawn = 2 * 8 * (3 * 8 * 8 + len(COLUMNS)) * 4  # for real and generated images
    assert make_plan(config, 16)["batch_bytes"] == plan["batch_bytes"] + drawn


@pytest.mark.parametrize(("every", "most"), [(300, 0), (200, 0), (100, 2), (150, 3)])
def test_checkpoints_to_roll_back_to_take_space(tiny, plan, every, most):
    """A rollback reaches 200 steps back."""
    assert _older_checkpoints(dataclasses.replace(tiny, checkpoint_every=every)) == most
    kept = _CHECKPOINTS + _older_checkpoints(tiny)
    assert kept < plan["run_bytes"] / plan["checkpoint_bytes"] < kept + 2


def test_generators_that_are_kept_take_space(tiny):
    def run_bytes(**changes):
        return make_plan(dataclasses.replace(tiny, total_steps=12, **changes), 16)["run_bytes"]

    one = (run_bytes(keep_every=3) - run_bytes(keep_every=12)) / 3
    assert one > 4 * count_parameters(tiny.generator)
    evaluated = dataclasses.replace(tiny.evaluation, every=3, keep_best=4)
    assert run_bytes(keep_every=12, evaluation=evaluated) == run_bytes(keep_every=12) + 5 * one


def test_the_course_of_a_run(tiny, plan, monkeypatch):
    assert plan["data_bytes"] == 16 * (3 * 8 * 8 + 8)
    update = {name: value for name, value in plan.items() if name in list(plan)[:13]}
    monkeypatch.setattr(plan_module, "_update", lambda *_: (update, (0, 0)))
    values = make_plan(dataclasses.replace(tiny, d_steps=3, total_steps=1000), 600, mapped=True)
    course = [values[n] for n in ("steps_per_epoch", "images_seen", "epochs")]
    assert course == [25, 24_000, 40]
    table = plan_table(values)
    assert ["steps", "per", "epoch", "25.0"] in [line.split() for line in table.splitlines()]
    assert "none; its 117 KiB are mapped from the disk" in table
    assert values["process_bytes"] > values["g_peak_bytes"]
    loaded = make_plan(tiny, 600)["process_bytes"]
    assert loaded == values["process_bytes"] + values["data_bytes"]
    without = make_plan(tiny, None)
    assert without["steps_per_epoch"] is without["epochs"] is None
    assert plan_table(without).count("unknown without data") == 4
    changes = [{"step": 2, "d_steps": 5}, {"step": 4, "freeze": "generator"}]
    changed = make_plan(TrainConfig.from_dict({**SMALL, "interventions": changes}).fitted(2), 16)
    assert plan["images_seen"] == 6 * 2 * 8
    assert changed["images_seen"] == (2 * 2 + 4 * 5) * 8
    assert changed["run_flops"] == 24 * plan["d_update_flops"] + 4 * plan["g_update_flops"]


def test_nothing_is_allocated():
    large = {**SMALL, "batch_size": 2**17, "generator": ONE_STAGE["generator"] | {"channels": 64}}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = make_plan(TrainConfig.from_dict(large), None)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert plan["g_peak_bytes"] > 20 * 2**30
    assert grown * 1024 < 2**29


def test_the_meter_does_not_change_what_is_computed():
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    with Meter():
        noted = F.conv2d(x, weight)
    torch.testing.assert_close(noted, F.conv2d(x, weight), rtol=0, atol=0)


def plan_of(**changes):
    return make_plan(TrainConfig.from_dict({**SMALL, "d_steps": 2, **changes}).fitted(2), 16)


def test_a_plan_knows_what_remedies_cost(plan):
    penalized = plan_of(r1={"gamma": 1.0})
    # A forward pass of the real half, its gradient, and the gradients of both.
    assert 1.4 < penalized["d_update_flops"] / plan["d_update_flops"] < 2.5
    assert penalized["g_update_flops"] == plan["g_update_flops"]
    assert penalized["d_peak_bytes"] > plan["d_peak_bytes"]
    assert penalized["d_activations_bytes"] >= plan["d_activations_bytes"]
    assert plan_of(spectrum={"generator": "clamp"})["g_update_flops"] > plan["g_update_flops"]
