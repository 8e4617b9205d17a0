//! Stats, read from the container's cgroup folders, in containerd's own forms: v1 where there is a v1 memory or CPU
//! accounting hierarchy, else v2. A file that is not there leaves its fields at zero.

use std::path::Path;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;

use crate::cgroup::{Cgroup, keyed};
use crate::stdio::read_small;

const V1: &str = "io.containerd.cgroups.v1.Metrics";
const V2: &str = "io.containerd.cgroups.v2.Metrics";

pub(crate) fn stats(cgroup: &Cgroup) -> protobuf::Result<Any> {
    let is_v1 = cgroup.v1("memory").is_some() || cgroup.v1("cpuacct").is_some();
    let (type_url, value) = if is_v1 {
        (V1, metrics_v1(cgroup).write_to_bytes()?)
    } else {
        (V2, cgroup.v2().map(metrics_v2).unwrap_or_default().write_to_bytes()?)
    };
    Ok(Any { type_url: type_url.into(), value, ..Default::default() })
}

/// One number in a file; `max` is no limit.
fn number(folder: &Path, file: &str) -> u64 {
    match read_small(folder.join(file)) {
        Ok(text) if text.trim() == "max" => u64::MAX,
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(_) => 0,
    }
}

fn text(folder: &Path, file: &str) -> String {
    read_small(folder.join(file)).unwrap_or_default()
}

fn metrics_v1(cgroup: &Cgroup) -> v1::Metrics {
    let mut metrics = v1::Metrics::default();
    if let Some(folder) = cgroup.v1("pids") {
        let limit = Some(number(folder, "pids.max")).filter(|limit| *limit != u64::MAX).unwrap_or(0);
        let pids = v1::PidsStat { current: number(folder, "pids.current"), limit, ..Default::default() };
        metrics.pids = Some(pids).into();
    }
    let mut cpu = v1::CPUStat::default();
    if let Some(folder) = cgroup.v1("cpuacct") {
        let per_cpu = text(folder, "cpuacct.usage_percpu");
        let usage = v1::CPUUsage {
            total: number(folder, "cpuacct.usage"),
            user: number(folder, "cpuacct.usage_user"),
            kernel: number(folder, "cpuacct.usage_sys"),
            per_cpu: per_cpu.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
            ..Default::default()
        };
        cpu.usage = Some(usage).into();
    }
    if let Some(folder) = cgroup.v1("cpu") {
        let stat = text(folder, "cpu.stat");
        let value = |key| keyed(&stat, key).unwrap_or(0);
        let throttling = v1::Throttle {
            periods: value("nr_periods"),
            throttled_periods: value("nr_throttled"),
            throttled_time: value("throttled_time"),
            ..Default::default()
        };
        cpu.throttling = Some(throttling).into();
    }
    metrics.cpu = Some(cpu).into();
    if let Some(folder) = cgroup.v1("memory") {
        metrics.memory = Some(memory_v1(folder)).into();
        let control = text(folder, "memory.oom_control");
        let value = |key| keyed(&control, key).unwrap_or(0);
        let oom = v1::MemoryOomControl {
            oom_kill_disable: value("oom_kill_disable"),
            under_oom: value("under_oom"),
            oom_kill: value("oom_kill"),
            ..Default::default()
        };
        metrics.memory_oom_control = Some(oom).into();
    }
    metrics
}

fn memory_v1(folder: &Path) -> v1::MemoryStat {
    let stat = text(folder, "memory.stat");
    let value = |key| keyed(&stat, key).unwrap_or(0);
    let entry = |prefix: &str| {
        let file = |name: &str| number(folder, &format!("{prefix}.{name}"));
        let entry = v1::MemoryEntry {
            limit: file("limit_in_bytes"),
            usage: file("usage_in_bytes"),
            max: file("max_usage_in_bytes"),
            failcnt: file("failcnt"),
            ..Default::default()
        };
        Some(entry).into()
    };
    v1::MemoryStat {
        cache: value("cache"),
        rss: value("rss"),
        rss_huge: value("rss_huge"),
        mapped_file: value("mapped_file"),
        dirty: value("dirty"),
        writeback: value("writeback"),
        pg_pg_in: value("pgpgin"),
        pg_pg_out: value("pgpgout"),
        pg_fault: value("pgfault"),
        pg_maj_fault: value("pgmajfault"),
        inactive_anon: value("inactive_anon"),
        active_anon: value("active_anon"),
        inactive_file: value("inactive_file"),
        active_file: value("active_file"),
        unevictable: value("unevictable"),
        hierarchical_memory_limit: value("hierarchical_memory_limit"),
        hierarchical_swap_limit: value("hierarchical_memsw_limit"),
        total_cache: value("total_cache"),
        total_rss: value("total_rss"),
        total_rss_huge: value("total_rss_huge"),
        total_mapped_file: value("total_mapped_file"),
        total_dirty: value("total_dirty"),
        total_writeback: value("total_writeback"),
        total_pg_pg_in: value("total_pgpgin"),
        total_pg_pg_out: value("total_pgpgout"),
        total_pg_fault: value("total_pgfault"),
        total_pg_maj_fault: value("total_pgmajfault"),
        total_inactive_anon: value("total_inactive_anon"),
        total_active_anon: value("total_active_anon"),
        total_inactive_file: value("total_inactive_file"),
        total_active_file: value("total_active_file"),
        total_unevictable: value("total_unevictable"),
        usage: entry("memory"),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
        ..Default::default()
    }
}

fn metrics_v2(folder: &Path) -> v2::Metrics {
    let limit = Some(number(folder, "pids.max")).filter(|limit| *limit != u64::MAX).unwrap_or(0);
    let pids = v2::PidsStat { current: number(folder, "pids.current"), limit, ..Default::default() };
    let stat = text(folder, "cpu.stat");
    let value = |key| keyed(&stat, key).unwrap_or(0);
    let cpu = v2::CPUStat {
        usage_usec: value("usage_usec"),
        user_usec: value("user_usec"),
        system_usec: value("system_usec"),
        nr_periods: value("nr_periods"),
        nr_throttled: value("nr_throttled"),
        throttled_usec: value("throttled_usec"),
        nr_bursts: value("nr_bursts"),
        burst_usec: value("burst_usec"),
        psi: pressure(folder, "cpu.pressure").into(),
        ..Default::default()
    };
    let happened = text(folder, "memory.events");
    let value = |key| keyed(&happened, key).unwrap_or(0);
    let events = v2::MemoryEvents {
        low: value("low"),
        high: value("high"),
        max: value("max"),
        oom: value("oom"),
        oom_kill: value("oom_kill"),
        oom_group_kill: value("oom_group_kill"),
        ..Default::default()
    };
    let io = v2::IOStat {
        usage: io_v2(&text(folder, "io.stat")),
        psi: pressure(folder, "io.pressure").into(),
        ..Default::default()
    };
    v2::Metrics {
        pids: Some(pids).into(),
        cpu: Some(cpu).into(),
        memory: Some(memory_v2(folder)).into(),
        memory_events: Some(events).into(),
        io: Some(io).into(),
        ..Default::default()
    }
}

fn memory_v2(folder: &Path) -> v2::MemoryStat {
    let stat = text(folder, "memory.stat");
    let value = |key| keyed(&stat, key).unwrap_or(0);
    v2::MemoryStat {
        anon: value("anon"),
        file: value("file"),
        kernel_stack: value("kernel_stack"),
        slab: value("slab"),
        sock: value("sock"),
        shmem: value("shmem"),
        file_mapped: value("file_mapped"),
        file_dirty: value("file_dirty"),
        file_writeback: value("file_writeback"),
        anon_thp: value("anon_thp"),
        inactive_anon: value("inactive_anon"),
        active_anon: value("active_anon"),
        inactive_file: value("inactive_file"),
        active_file: value("active_file"),
        unevictable: value("unevictable"),
        slab_reclaimable: value("slab_reclaimable"),
        slab_unreclaimable: value("slab_unreclaimable"),
        pgfault: value("pgfault"),
        pgmajfault: value("pgmajfault"),
        workingset_refault: value("workingset_refault_file"),
        workingset_activate: value("workingset_activate_file"),
        workingset_nodereclaim: value("workingset_nodereclaim"),
        pgrefill: value("pgrefill"),
        pgscan: value("pgscan"),
        pgsteal: value("pgsteal"),
        pgactivate: value("pgactivate"),
        pgdeactivate: value("pgdeactivate"),
        pglazyfree: value("pglazyfree"),
        pglazyfreed: value("pglazyfreed"),
        thp_fault_alloc: value("thp_fault_alloc"),
        thp_collapse_alloc: value("thp_collapse_alloc"),
        usage: number(folder, "memory.current"),
        usage_limit: number(folder, "memory.max"),
        max_usage: number(folder, "memory.peak"),
        swap_usage: number(folder, "memory.swap.current"),
        swap_limit: number(folder, "memory.swap.max"),
        swap_max_usage: number(folder, "memory.swap.peak"),
        psi: pressure(folder, "memory.pressure").into(),
        ..Default::default()
    }
}

/// Pressure stall information: lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, percent and microseconds. None
/// where the kernel does not keep it.
fn pressure(folder: &Path, file: &str) -> Option<v2::PSIStats> {
    let text = text(folder, file);
    let line = |kind: &str| {
        let words = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let mut data = v2::PSIData::default();
        for (key, value) in words.split_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => data.avg10 = value.parse().ok()?,
                "avg60" => data.avg60 = value.parse().ok()?,
                "avg300" => data.avg300 = value.parse().ok()?,
                "total" => data.total = value.parse().ok()?,
                _ => {}
            }
        }
        Some(data)
    };
    let (some, full) = (line("some"), line("full"));
    (some.is_some() || full.is_some()).then(|| v2::PSIStats {
        some: some.into(),
        full: full.into(),
        ..Default::default()
    })
}

/// Lines of `major:minor rbytes=1 wbytes=2 rios=3 wios=4`.
fn io_v2(text: &str) -> Vec<v2::IOEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let mut entry = v2::IOEntry { major, minor, ..Default::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, content)| fs::write(folder.path().join(name), content).unwrap());
        folder
    }

    #[test]
    fn v1_is_read_in_nanoseconds_and_bytes() {
        let folder = folder(&[
            ("memory.stat", "cache 5\ntotal_inactive_file 11\n"),
            ("memory.usage_in_bytes", "100\n"),
            ("memory.limit_in_bytes", "200\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            ("cpuacct.usage", "7000\n"),
            ("cpuacct.usage_percpu", "3000 4000 \n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
        ]);
        let path = folder.path().to_str().unwrap();
        let all = ["memory", "cpu,cpuacct", "pids"].map(|names| (names.to_owned(), path.to_owned()));
        let any = stats(&Cgroup::new(&all)).unwrap();
        assert_eq!(any.type_url, V1);
        let metrics = v1::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((metrics.memory.usage.usage, metrics.memory.usage.limit), (100, 200));
        assert_eq!((metrics.memory.cache, metrics.memory.total_inactive_file), (5, 11));
        assert_eq!((metrics.cpu.usage.total, metrics.cpu.usage.per_cpu.len()), (7000, 2));
        assert_eq!((metrics.pids.current, metrics.pids.limit, metrics.memory_oom_control.oom_kill), (2, 0, 3));
    }

    #[test]
    fn v2_is_read_in_microseconds_and_bytes() {
        let folder = folder(&[
            ("memory.stat", "anon 1\nfile 2\ninactive_file 3\n"),
            ("memory.current", "50\n"),
            ("memory.max", "max\n"),
            ("memory.events", "oom 1\noom_kill 2\n"),
            ("cpu.stat", "usage_usec 9\n"),
            (
                "cpu.pressure",
                "some avg10=1.50 avg60=0.20 avg300=0.03 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
            ),
            ("memory.pressure", "some avg10=x avg60=0.20 avg300=0.03 total=77\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0\nbroken\n"),
        ]);
        let any = stats(&Cgroup::new(&[(String::new(), folder.path().to_str().unwrap().into())])).unwrap();
        assert_eq!(any.type_url, V2);
        let metrics = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((metrics.memory.usage, metrics.memory.usage_limit), (50, u64::MAX));
        assert_eq!((metrics.memory.inactive_file, metrics.cpu.usage_usec, metrics.memory_events.oom_kill), (3, 9, 2));
        assert_eq!((metrics.io.usage.len(), metrics.io.usage[0].wbytes), (1, 20));
        let cpu = &metrics.cpu.psi;
        assert_eq!((cpu.some.avg10, cpu.some.avg60, cpu.some.avg300, cpu.some.total), (1.5, 0.2, 0.03, 77));
        assert_eq!(cpu.full.total, 5);
        assert!(metrics.memory.psi.is_none() && metrics.io.psi.is_none(), "not understood, not there");
    }
}
