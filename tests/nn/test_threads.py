"""Parts of work in several threads, each on one core."""

import threading
import time

import pytest
import torch

from biggan.nn.threads import in_threads


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_of_one_core_each_take_all_parts_once():
    done, cores, names = [], set(), set()
    both = threading.Barrier(2, timeout=30)

    def worker():
        def work(part):
            if part < 2:
                both.wait()  # one thread alone would wait in vain
            done.append(part)
            cores.add(torch.get_num_threads())
            names.add(threading.current_thread().name)

        return work

    in_threads(worker, range(20))
    assert sorted(done) == list(range(20))
    assert cores == {1}
    assert len(names) == 2
    assert torch.get_num_threads() == 2


def test_few_parts_are_worked_on_here_by_all_cores():
    seen = []

    def worker():
        return lambda part: seen.append((part, torch.get_num_threads(), threading.get_ident()))

    in_threads(worker, range(3))
    assert seen == [(part, 2, threading.get_ident()) for part in range(3)]


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_there_are_no_gradients_and_tensors_are_of_the_callers_mode(mode, parts):
    with mode():
        target = torch.zeros(4)
        seen = set()

        def worker():
            def work(part):
                target[part] += 1
                seen.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))

            return work

        in_threads(worker, range(parts))
        assert target.sum() == parts
    assert seen == {(False, mode is torch.inference_mode)}


def test_an_error_of_a_thread_is_raised():
    def worker():
        def work(part):
            if part == 3:
                raise RuntimeError("part 3")

        return work

    with pytest.raises(RuntimeError, match="part 3"):
        in_threads(worker, range(5))


def test_parts_of_sums_are_shared_out_the_same_whoever_is_slow():
    def shared_out(slow):
        taken = []

        def worker():
            own = []
            taken.append(own)
            is_slow = len(taken) == slow

            def work(part):
                if is_slow:
                    time.sleep(0.01)
                own.append(part)

            return work

        in_threads(worker, range(7), summed=True)
        return taken

    assert shared_out(slow=1) == shared_out(slow=2) == [[0, 2, 4, 6], [1, 3, 5]]
