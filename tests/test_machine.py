"""Tests memory, cores and limits on imitated machines in a folder."""

import errno
import os
import resource

import pytest

from fedtlu_fast import machine
from fedtlu_fast.errors import FedtluError
from fedtlu_fast.machine import check_room_for_libraries, cores, lies_in_memory, memory_room, refusal

GB = 10**9
NO_LIMIT = 9223372036854771712
"""What version 1 says where there is none."""
V1 = "31 23 0:28 / /sys/fs/cgroup/{0} rw - cgroup cgroup rw,{0}\n"
V2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture
def lay_out(tmp_path, monkeypatch):
    """Writes files of a machine with 10 GB of memory, 8 available and 1 free, and removes our limits."""
    monkeypatch.setattr(machine, "_limit", lambda name: None)

    def write(files):
        meminfo = f"MemTotal: {10 * GB // 1024} kB\nMemFree: {GB // 1024} kB\nMemAvailable: 7812500 kB\n"
        for name, text in {"proc/meminfo": meminfo, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        return tmp_path

    return write


def v1(path, limit, used, files=0, **more):
    folder = f"sys/fs/cgroup/memory{path}"
    return {
        "proc/self/cgroup": f"5:cpu,cpuacct:/other\n4:memory:{path}\n0::/\n",
        "proc/self/mountinfo": V1.format("memory"),
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": used,
        f"{folder}/memory.stat": f"inactive_file 7\ntotal_inactive_file {files}\ntotal_active_file 0\n",
    }


def v2(path, limit, used, files=0, **more):
    folder = f"sys/fs/cgroup{path}"
    return {
        "proc/self/cgroup": f"0::{path}\n",
        "proc/self/mountinfo": V2,
        f"{folder}/memory.max": limit,
        f"{folder}/memory.current": used,
        f"{folder}/memory.stat": f"anon 5\ninactive_file {files}\n",
    } | {f"{folder}/{name}": value for name, value in more.items()}


def test_memory_that_the_system_would_give_back_counts(lay_out):
    assert memory_room(lay_out({})).bytes == 8 * GB


def test_memory_that_the_system_will_not_promise_does_not(lay_out):
    files = {"proc/sys/vm/overcommit_memory": 2}
    more = f"MemAvailable: 7812500 kB\nCommitLimit: {6 * GB // 1024} kB\nCommitted_AS: {5 * GB // 1024} kB\n"
    assert memory_room(lay_out({**files, "proc/meminfo": more})).bytes == pytest.approx(GB, abs=2048)


@pytest.mark.parametrize("laid", [v1, v2])
def test_a_containers_limit_counts_less_what_is_used_and_cannot_be_given_back(lay_out, laid):
    room = memory_room(lay_out(laid("/box", 3 * GB, 2 * GB, files=GB // 2)))
    assert room.bytes == 3 * GB - 2 * GB + GB // 2
    assert "container's limit of 3.00 GB" in room.bound


@pytest.mark.parametrize("laid", [v1, v2])
def test_no_limit_is_no_limit(lay_out, laid):
    assert memory_room(lay_out(laid("/box", NO_LIMIT if laid is v1 else "max", 2 * GB))).bytes == 8 * GB


def test_more_used_than_allowed_leaves_nothing(lay_out):
    assert memory_room(lay_out(v2("/box", GB, 2 * GB))).bytes == 0


@pytest.mark.parametrize("laid", [v1, v2])
def test_the_groups_above_count_too(lay_out, laid):
    lay_out(laid("/outer", 2 * GB, GB))
    assert memory_room(lay_out(laid("/outer/inner", 4 * GB, GB))).bytes == GB
    assert memory_room(lay_out(laid("/outer/other/inner", "max", GB))).bytes == GB
    assert memory_room(lay_out(laid("/outermost", 5 * GB, GB))).bytes == 4 * GB


def test_a_soft_limit_of_version_2_counts(lay_out):
    more = {"memory.high": 2 * GB}
    assert memory_room(lay_out(v2("/box", 4 * GB, GB, **more))).bytes == GB


def test_a_container_that_shows_its_own_group_as_the_top(lay_out):
    """The path is the host's, and the mounted folder is that group itself."""
    mount = "31 23 0:28 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    files = v1("", 3 * GB, GB) | {"proc/self/mountinfo": mount}
    for path in ("/docker/abc", "/docker/abc/below", "/docker/elsewhere", "/../outside"):
        assert memory_room(lay_out({**files, "proc/self/cgroup": f"4:memory:{path}\n"})).bytes == 2 * GB


def test_a_mount_point_with_a_space(lay_out):
    files = {"proc/self/mountinfo": "1 2 0:3 / /my\\040groups rw shared:4 - cgroup2 none rw\n"}
    files |= {"proc/self/cgroup": "0::/x\n", "my groups/x/memory.max": 3 * GB}
    assert memory_room(lay_out({**files, "my groups/x/memory.current": GB})).bytes == 2 * GB


def test_both_versions_side_by_side(lay_out):
    files = v1("/box", 3 * GB, GB)
    files["proc/self/mountinfo"] += "32 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    assert memory_room(lay_out(files)).bytes == 2 * GB


@pytest.mark.parametrize(("name", "line"), [("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")])
def test_limits_of_the_process_count(lay_out, monkeypatch, name, line):
    monkeypatch.setattr(machine, "_limit", lambda asked: 3 * 10**9 if asked == name else None)
    room = memory_room(lay_out({"proc/self/status": f"Name: python\n{line}:\t 1000000 kB\n"}))
    assert room.bytes == 3 * 10**9 - 1_024_000_000
    assert "ulimit" in room.bound


def test_without_any_of_these_files_there_is_an_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_limit", lambda name: None)
    assert memory_room(tmp_path).bytes > 0
    assert cores(tmp_path) >= 1


@pytest.mark.parametrize(
    ("quota", "expected"), [(-1, 8), (50_000, 1), (100_000, 1), (150_000, 2), (390_000, 4), (2_000_000, 8)]
)
def test_quotas_of_version_1_limit_the_cores(lay_out, monkeypatch, quota, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    folder = "sys/fs/cgroup/cpu,cpuacct/box"
    mount = "31 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    files = {"proc/self/cgroup": "5:cpu,cpuacct:/box\n", "proc/self/mountinfo": mount}
    files |= {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": 100_000}
    assert cores(lay_out(files)) == expected


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [("max 100000", "max 100000", 8), ("150000 100000", "max 100000", 2), ("max 100000", "1000 1000", 1)],
)
def test_quotas_of_version_2_limit_the_cores(lay_out, monkeypatch, inner, outer, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    files = {"proc/self/cgroup": "0::/outer/inner\n", "proc/self/mountinfo": V2}
    files |= {"sys/fs/cgroup/outer/cpu.max": outer, "sys/fs/cgroup/outer/inner/cpu.max": inner}
    assert cores(lay_out(files)) == expected


def test_refusals_name_the_limit(tmp_path):
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert f"{open_files} open files" in refusal(OSError(errno.EMFILE, "Too many open files"))
    assert "out of memory" in refusal(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert "out of memory" in refusal(ImportError("libx.so: failed to map segment from shared object"))
    assert "out of memory" in refusal(MemoryError())
    assert "ulimit -u" in refusal(RuntimeError("can't start new thread"))
    for other in (OSError(errno.ENOENT, "No such file"), ImportError("no module x"), ValueError("9")):
        assert refusal(other) is None


def test_python_that_stumbles_is_out_of_memory_only_where_little_is_left(lay_out):
    error = SystemError("error return without exception set")
    assert refusal(error, lay_out({})) is None
    assert "out of memory" in refusal(error, lay_out(v2("/box", GB, GB - 1000)))


def test_a_containers_limit_of_processes_is_named(lay_out):
    files = {"proc/self/cgroup": "8:pids:/box\n", "proc/self/mountinfo": V1.format("pids")}
    root = lay_out({**files, "sys/fs/cgroup/pids/box/pids.max": 17})
    assert "the container's limit is 17" in refusal(BlockingIOError(errno.EAGAIN, "try again"), root)


def test_limits_under_which_libraries_would_die_are_errors_before(lay_out, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    group = {"proc/self/cgroup": "8:pids:/box\n", "proc/self/mountinfo": V1.format("pids")}
    box = "sys/fs/cgroup/pids/box"
    check_room_for_libraries(lay_out({**group, f"{box}/pids.max": 10, f"{box}/pids.current": 3}))
    little = lay_out({f"{box}/pids.current": 4})
    with pytest.raises(FedtluError, match=r"limit is 10 .*room for 6, .* start 7.*OPENBLAS_NUM_THREADS"):
        check_room_for_libraries(little)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    check_room_for_libraries(little)
    monkeypatch.setattr(machine, "_limit", lambda name: 700_000_000 if name == "RLIMIT_AS" else None)
    with pytest.raises(FedtluError, match=r"allows 0\.70 GB .* about 0\.9 GB"):
        check_room_for_libraries(little)


@pytest.mark.parametrize(("kind", "expected"), [("tmpfs", True), ("ext4", False)])
def test_whether_a_folder_lies_in_memory(lay_out, tmp_path, kind, expected):
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    assert not lies_in_memory(tmp_path, lay_out({}))
    root = lay_out(
        {"proc/self/mountinfo": f"1 0 {number} / /x rw - {kind} none rw\n2 0 9:99 / /y rw - tmpfs t rw\n"}
    )
    assert lies_in_memory(tmp_path, root) is expected
