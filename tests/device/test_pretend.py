"""The pretend accelerator refuses, waits and counts as CUDA does, and is gone when its block ends."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sslticket.config.runtime import RuntimeConfig
from sslticket.training.engine import Engine
from tests.device import pretend
from tests.device.conftest import Device


def there(*values: float) -> Tensor:
    return torch.tensor(values, device="sim", dtype=torch.float32)


def kernels(accelerator: pretend.Pretend) -> int:
    return sum(accelerator.tally.kernels.values())


def test_the_process_has_no_accelerator_before_and_after(device: Device) -> None:
    for _ in range(2):
        assert not torch.accelerator.is_available()
        assert Engine.create(RuntimeConfig(), "fp32").accelerator.device.type == "cpu"
        with device():
            assert torch.accelerator.is_available()
            assert Engine.create(RuntimeConfig(), "fp32").device_name == "a pretend accelerator"
    assert not torch.accelerator.is_available()
    assert Engine.create(RuntimeConfig(), "fp32").accelerator.device.type == "cpu"
    with pytest.raises(RuntimeError, match="getPinnedMemoryAllocator"):
        torch.ones(2).pin_memory()


def test_results_are_the_cpus_forward_and_backward(device: Device) -> None:
    torch.manual_seed(0)
    net, images = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()), torch.rand(4, 2, 5, 5)
    with device():
        ours = copy.deepcopy(net).to("sim")
        loss = ours(images.to("sim")).square().mean()
        loss.backward()
        assert loss.device == torch.device("sim", 0)
        gradients = [parameter.grad.cpu() for parameter in ours.parameters()]  # type: ignore[union-attr]
    net(images).square().mean().backward()
    assert all(map(torch.equal, gradients, [parameter.grad for parameter in net.parameters()]))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda: there(1, 2) + torch.ones(2),
        lambda: torch.ones(2) + there(1, 2),
        lambda: torch.cat([there(1), torch.ones(1)]),
        lambda: torch.zeros(()).add_(there(1)[0]),
        lambda: there(1, 2).index_select(0, torch.tensor([1])),
        lambda: torch.nn.functional.linear(there(1, 2), torch.ones(3, 2)),
    ],
)
def test_devices_cannot_be_mixed(device: Device, mixed: Callable[[], Tensor]) -> None:
    with pytest.raises(AssertionError, match="on the CPU with"), device(), pytest.raises(pretend.Mixed):
        mixed()


def test_numbers_of_the_host_are_arguments_of_kernels(device: Device) -> None:
    with device() as accelerator:
        assert (there(1, 2) * torch.tensor(3.0)).tolist() == [3, 6]
        x = there(1, 2, 3)
        before = accelerator.mark()
        x[x > 1.5] = 0.0
        x[0] = 5.0
        since = accelerator.mark().since(before)
    assert not since.waits
    assert sum(since.kernels.values()) == 3, "a comparison, a masked fill, a fill"


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.item(),
        lambda x: bool((x > 0).all()),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.ones(3).to(x.device),
        lambda x: torch.ones(3).to(x.device, non_blocking=True),
        lambda x: x[torch.tensor([0])],
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
        lambda x: x.repeat_interleave(torch.ones(1, dtype=torch.int64).expand(1).to(x.device)),
        lambda x: torch.get_device_module(x.device).synchronize(),
    ],
)
def test_the_host_waits_where_it_needs_a_number_a_size_or_pageable_memory(
    device: Device, wait: Callable[[Tensor], object]
) -> None:
    with device() as accelerator:
        x = torch.ones(1, device="sim")
        before = accelerator.mark()
        wait(x)
        assert accelerator.mark().since(before).waits.total() >= 1


def test_the_host_waits_for_nothing_else(device: Device) -> None:
    with device() as accelerator:
        host = torch.ones(3).pin_memory()
        assert host.is_pinned()
        assert not torch.ones(3).is_pinned()
        x = host.to("sim", non_blocking=True)
        x[:2].copy_(host[:2], non_blocking=True)
        x = torch.where(x > 0, x, 0.0).sort().values.cumsum(0).topk(2).values
        x = x.repeat_interleave(torch.full_like(x, 2, dtype=torch.int64), output_size=4)
        back = x.to("cpu", non_blocking=True)
        assert not accelerator.tally.waits
    assert back.tolist() == [3, 3, 2, 2]


def test_empty_memory_is_no_number(device: Device) -> None:
    with device():
        for made in (torch.empty(2, device="sim"), torch.empty_like(there(1, 2)), there(1).new_empty(2)):
            assert made.isnan().all()


def test_a_fused_optimiser_refuses_state_in_another_layout(device: Device) -> None:
    with pytest.raises(AssertionError, match="with strides"), device():  # noqa: PT012
        weight = nn.Parameter(torch.ones(2, 3, 2, 2, device="sim"))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        optimizer.state[weight]["momentum_buffer"] = torch.ones(2, 2, 2, 3, device="sim").permute(0, 3, 1, 2)
        with pytest.raises(pretend.Mixed):
            optimizer.step()


def test_lists_take_as_many_launches_as_their_length_asks_for(device: Device) -> None:
    with device() as accelerator:
        many = [torch.ones(1, device="sim") for _ in range(111)]
        before = accelerator.mark()
        torch._foreach_add_(many, 1.0)
        torch._foreach_mul_(many[:110], 1.0)
        torch._foreach_add_([torch.ones(321 * 65_536, device="sim")], 1.0)
        assert sum(accelerator.mark().since(before).kernels.values()) == 2 + 1 + 1 + 2


def test_autocast_computes_products_in_half_and_losses_in_full(device: Device) -> None:
    with device(), torch.autocast("sim", torch.bfloat16):
        product = there(1, 2) @ there(1, 2)
        assert product.dtype == torch.bfloat16
        assert product.exp().dtype == torch.float32


def test_a_graph_does_its_work_when_it_is_launched_and_on_the_same_tensors(device: Device) -> None:
    with device() as accelerator:
        given, weight = there(1, 2), nn.Parameter(there(3, 4))
        optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.5)
        scale = torch.tensor(1.0)

        def step() -> Tensor:
            optimizer.zero_grad(set_to_none=False)
            loss = (weight * given * scale).sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        step()
        graph = pretend.Graph()
        with graph.capture():
            loss = step()
        assert weight.tolist() == [2.5, 3]
        graph.replay()
        assert (loss.item(), weight.tolist()) == (8.5, [1.75, 1.5])  # by 0.5 (1.5 given)
        scale.fill_(100.0)  # baked in as it was
        before = accelerator.mark()
        graph.replay()
        assert accelerator.mark().since(before).kernels == {"replay": 1}
        assert (loss.item(), weight.tolist()) == (4.75, [0.875, -0.25])
        given.copy_(there(0, 0))
        graph.replay()
        assert loss.item() == 0


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: x.item(),
        lambda x: x.copy_(torch.ones(1)),
        lambda x: x.copy_(torch.ones(1).pin_memory(), non_blocking=True),
        lambda x: torch.rand(1, generator=torch.Generator("sim"), device="sim"),
    ],
)
def test_a_graph_takes_nothing_from_the_host(device: Device, refused: Callable[[Tensor], object]) -> None:
    with device():
        x = torch.ones(1, device="sim")
        with pytest.raises(pretend.Refused), pretend.Graph().capture():
            refused(x)
