import pytest

from meshhost.errors import CallRefusedError, SettingsError
from meshhost.hosting.observe.load import (
    Load,
    LoadLimits,
    LoadMeter,
    cgroup_directories,
    cpu_limit,
    cpu_seconds,
    load_per_core,
    memory_fraction,
)
from meshhost.testing.clock import FakeClock


@pytest.fixture
def proc(tmp_path):
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/pod/container\n")
    (proc / "loadavg").write_text("3.00 1.00 0.50 1/100 4242\n")
    (proc / "meminfo").write_text("MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\n")
    return proc


@pytest.fixture
def cgroup(tmp_path):
    root = tmp_path / "cgroup"
    (root / "pod" / "container").mkdir(parents=True)
    return root


def write(directory, **files):
    for name, text in files.items():
        (directory / name.replace("_", ".", 1)).write_text(text)


def test_the_cgroups_above_count_and_what_is_not_there_does_not(cgroup, proc, tmp_path):
    inner = cgroup / "pod" / "container"
    assert cgroup_directories(cgroup, proc) == (inner, cgroup / "pod", cgroup)
    (proc / "self" / "cgroup").write_text("3:cpu:/x\n0::/gone/../pod\n")
    assert cgroup_directories(cgroup, proc) == (cgroup,)
    (proc / "self" / "cgroup").write_text("0::/elsewhere\n")
    assert cgroup_directories(cgroup, proc) == (cgroup,)
    assert cgroup_directories(tmp_path / "none", tmp_path / "none") == (tmp_path / "none",)


def test_the_tightest_limit_of_the_cpu_counts(cgroup, proc):
    directories = cgroup_directories(cgroup, proc)
    assert cpu_limit(directories) is None
    write(cgroup / "pod", cpu_max="150000 100000\n", cpu_stat="usage_usec 2500000\nuser_usec 1\n")
    write(cgroup / "pod" / "container", cpu_max="max 100000\n")
    assert cpu_limit(directories) == (cgroup / "pod", 1.5)
    write(cgroup / "pod" / "container", cpu_max="50000 100000\n")
    assert cpu_limit(directories) == (cgroup / "pod" / "container", 0.5)
    write(cgroup / "pod" / "container", cpu_max="nonsense")
    assert cpu_limit(directories) == (cgroup / "pod", 1.5)
    assert cpu_seconds(cgroup / "pod") == 2.5
    assert cpu_seconds(cgroup) is None


def test_memory_that_can_be_dropped_does_not_count(cgroup, proc):
    directories = cgroup_directories(cgroup, proc)
    assert memory_fraction(directories, proc) == pytest.approx(0.6)
    write(cgroup / "pod", memory_max="max\n", memory_current="5000\n")
    assert memory_fraction(directories, proc) == pytest.approx(0.6)
    write(cgroup / "pod", memory_max="1000\n", memory_current="900\n", memory_stat="anon 5\ninactive_file 400\n")
    assert memory_fraction(directories, proc) == pytest.approx(0.5)
    (proc / "meminfo").write_text("nothing\n")
    assert memory_fraction(cgroup_directories(cgroup / "none", proc), proc) == 0


def test_the_load_average_is_by_core(proc, tmp_path):
    assert load_per_core(proc, 4) == 0.75
    assert load_per_core(tmp_path / "none", 4) == 0


def meter(cgroup, proc, clock=None, live=0, **limits):
    return LoadMeter(
        clock=clock or FakeClock(),
        live=lambda: live,
        max_agents=10,
        limits=LoadLimits(**limits),
        cgroup=cgroup,
        proc=proc,
    )


def test_limits_are_positive():
    with pytest.raises(SettingsError, match="lag"):
        LoadLimits(lag=0)


def test_the_worst_part_is_the_load():
    load = Load(lag=0.5, cpu=1.2, memory=0.1, agents=1.0)
    assert load.value == 1.0
    assert load.reasons == ("cpu", "agents")
    assert load.as_json() == {"lag": 0.5, "cpu": 1.2, "memory": 0.1, "agents": 1.0}
    assert Load().reasons == ()


async def test_cpu_is_what_was_used_of_the_limit_and_a_burst_is_no_overload(cgroup, proc):
    clock = FakeClock()
    inner = cgroup / "pod" / "container"
    write(inner, cpu_max="200000 100000", cpu_stat="usage_usec 0")
    made = meter(cgroup, proc, clock, cpu=1.0)
    made.sample()
    made.sample()
    assert made.load.cpu == 0
    await clock.advance(1)
    write(inner, cpu_stat="usage_usec 2000000")
    made.sample()
    assert made.load.cpu == pytest.approx(0.2)
    made.check()
    for second in range(2, 60):
        await clock.advance(1)
        write(inner, cpu_stat=f"usage_usec {second * 2_100_000}")
        made.sample()
    with pytest.raises(CallRefusedError, match=r"this host is overloaded: CPU \(105% of the limit\)") as refused:
        made.check()
    assert (refused.value.status, refused.value.retry_after) == (503, 10.0)
    (inner / "cpu.stat").unlink()
    made.sample()
    assert made.load.cpu == pytest.approx(1.05, abs=0.01)


def test_without_a_limit_the_load_average_counts(cgroup, proc, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    made = meter(cgroup, proc, per_core=1.5)
    for _ in range(50):
        made.sample()
    assert made.load.cpu == pytest.approx(2.0, abs=0.01)


def test_memory_and_a_late_loop_refuse_and_agents_do_not(cgroup, proc):
    made = meter(cgroup, proc, memory=0.5, lag=0.5, live=10)
    made.sample()
    with pytest.raises(CallRefusedError, match=r"memory \(120% of the limit\)"):
        made.check()
    (proc / "meminfo").write_text("MemTotal: 10 kB\nMemAvailable: 9 kB\n")
    made.sample()
    made.check()
    assert made.load.reasons == ("agents",)
    made.observe_lag(0.6)
    with pytest.raises(CallRefusedError, match="the event loop is late"):
        made.check()
    for _ in range(10):
        made.observe_lag(0.0)
    made.check()
    assert made.load.lag == pytest.approx(0.6 * 0.9**10 / 0.5)
