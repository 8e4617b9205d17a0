//! `linux.*`.
use super::Field::{self, Leaf, List, Map, Object};
use super::{COUNT, DEVICE_NUMBER, ID, MAPS, NOTHING, PATH, SWITCH, TEXT};

pub(super) const LINUX: Field = Object(&[
    (
        "namespaces",
        List(
            &Object(&[
                ("type", Leaf(&[r#""pid""#, r#""network""#, r#""user""#, r#""time""#, r#""cgroup""#, r#""mount""#])),
                ("path", Leaf(NAMESPACES)),
            ]),
            &[
                r#"{"type":"network","path":"/proc/1/ns/net"}"#,
                r#"{"type":"pid","path":"/proc/4242/ns/pid"}"#,
                r#"{"type":"ipc","path":"/proc/666/ns/ipc"}"#,
                r#"{"type":"user"}"#,
                r#"{"type":"time"}"#,
                r#"{"type":"cgroup","path":"/proc/1/ns/cgroup"}"#,
            ],
        ),
    ),
    ("uidMappings", MAPS),
    ("gidMappings", MAPS),
    ("timeOffsets", Object(&[("monotonic", Object(&[("secs", COUNT), ("nanosecs", COUNT)]))])),
    (
        "devices",
        List(
            &Object(&[
                ("type", Leaf(&[r#""c""#, r#""b""#, r#""u""#, r#""p""#, r#""a""#])),
                ("path", Leaf(&[r#""/dev/null""#, r#""/dev/fuse""#, r#""/dev/../etc/x""#, r#""/etc/x""#])),
                ("major", DEVICE_NUMBER),
                ("minor", DEVICE_NUMBER),
                ("fileMode", Leaf(&["438", "511", "2541"])),
                ("uid", ID),
                ("gid", ID),
            ]),
            &[
                r#"{"path":"/dev/fuse","type":"c","major":10,"minor":229,"fileMode":438}"#,
                r#"{"path":"/dev/fuse","type":"b","major":254,"minor":0}"#,
                r#"{"path":"/dev/vda","type":"b","major":254,"minor":0}"#,
                r#"{"path":"/dev/null","type":"c","major":1,"minor":1}"#,
                r#"{"path":"/dev/mem","type":"c","major":1,"minor":1}"#,
            ],
        ),
    ),
    ("netDevices", Map(&[("eth0", &[r#"{"name":"x"}"#, "{}"])])),
    (
        "cgroupsPath",
        Leaf(&[
            r#""/kubepods/c1""#,
            r#""""#,
            r#""/""#,
            r#""../..""#,
            r#""/a/../b""#,
            r#""kubepods.slice:cri-containerd:c1""#,
            r#""system.slice:x:..""#,
        ]),
    ),
    ("resources", RESOURCES),
    (
        "intelRdt",
        Object(&[
            ("closID", TEXT),
            ("l3CacheSchema", TEXT),
            ("memBwSchema", TEXT),
            ("enableCMT", SWITCH),
            ("enableMBM", SWITCH),
            ("schemata", List(&TEXT, NOTHING)),
        ]),
    ),
    ("memoryPolicy", Object(&[("mode", Leaf(&[r#""MPOL_BIND""#])), ("nodes", TEXT), ("flags", List(&TEXT, NOTHING))])),
    (
        "sysctl",
        Map(&[
            ("net.ipv4.ip_unprivileged_port_start", &[r#""0""#, r#""0\n1""#, "0"]),
            ("net.ipv4.ip_forward", &[r#""1""#]),
            ("kernel.shm_rmid_forced", &[r#""1""#]),
            ("kernel.core_pattern", &[r#""|/bin/sh""#]),
            ("kernel/core_pattern", &[r#""|/bin/sh""#]),
            ("net.ipv4/../../kernel/core_pattern", &[r#""|/bin/sh""#]),
            ("kernel.yama.ptrace_scope", &[r#""0""#]),
            ("user.max_user_namespaces", &[r#""1""#]),
        ]),
    ),
    (
        "seccomp",
        Object(&[
            ("defaultAction", Leaf(ACTIONS)),
            ("defaultErrnoRet", COUNT),
            (
                "architectures",
                List(
                    &Leaf(NOTHING),
                    &[r#""SCMP_ARCH_X86_64""#, r#""SCMP_ARCH_X86""#, r#""SCMP_ARCH_ARM""#, r#""SCMP_ARCH_PDP11""#],
                ),
            ),
            (
                "flags",
                List(
                    &Leaf(NOTHING),
                    &[
                        r#""SECCOMP_FILTER_FLAG_SPEC_ALLOW""#,
                        r#""SECCOMP_FILTER_FLAG_LOG""#,
                        r#""SECCOMP_FILTER_FLAG_X""#,
                    ],
                ),
            ),
            ("listenerPath", PATH),
            ("listenerMetadata", TEXT),
            (
                "syscalls",
                List(
                    &Object(&[
                        ("names", List(&TEXT, &[r#""read""#, r#""mount""#, r#""no_such_call""#])),
                        ("action", Leaf(ACTIONS)),
                        ("errnoRet", COUNT),
                        (
                            "args",
                            List(
                                &Object(&[
                                    ("index", COUNT),
                                    ("value", COUNT),
                                    ("valueTwo", COUNT),
                                    ("op", Leaf(&[r#""SCMP_CMP_EQ""#, r#""SCMP_CMP_MASKED_EQ""#, r#""SCMP_CMP_X""#])),
                                ]),
                                &[r#"{"index":0,"value":1,"op":"SCMP_CMP_NE"}"#],
                            ),
                        ),
                    ]),
                    &[
                        r#"{"names":["mount","bpf","ptrace"],"action":"SCMP_ACT_ALLOW"}"#,
                        r#"{"names":["getpid"],"action":"SCMP_ACT_NOTIFY"}"#,
                        r#"{"names":[],"action":"SCMP_ACT_ALLOW"}"#,
                    ],
                ),
            ),
        ]),
    ),
    (
        "rootfsPropagation",
        Leaf(&[r#""private""#, r#""rslave""#, r#""slave""#, r#""shared""#, r#""rshared""#, r#""unbindable""#]),
    ),
    ("maskedPaths", List(&PATH, &[r#""/proc/acpi""#, r#""/proc/mine""#])),
    ("readonlyPaths", List(&PATH, &[r#""/proc/sys""#, r#""/proc/mine""#])),
    ("mountLabel", Leaf(&[r#""system_u:object_r:container_file_t:s0:c1,c2""#, r#""x,uid=0""#])),
    ("personality", Object(&[("domain", Leaf(&[r#""LINUX32""#])), ("flags", List(&TEXT, NOTHING))])),
]);

const NAMESPACES: &[&str] = &[
    r#""/proc/1/ns/net""#,
    r#""/proc/1/ns/pid""#,
    r#""/proc/self/ns/mnt""#,
    r#""/proc/4242/ns/net""#,
    r#""/proc/4242/ns/ipc""#,
    r#""/proc/666/ns/net""#,
    r#""/var/run/netns/gone""#,
    r#""/dev/null""#,
    r#""proc/1/ns/net""#,
];

const ACTIONS: &[&str] = &[
    r#""SCMP_ACT_ERRNO""#,
    r#""SCMP_ACT_KILL_PROCESS""#,
    r#""SCMP_ACT_ALLOW""#,
    r#""SCMP_ACT_LOG""#,
    r#""SCMP_ACT_NOTIFY""#,
    r#""SCMP_ACT_TRACE""#,
    r#""SCMP_ACT_NEW""#,
];

const RESOURCES: Field = Object(&[
    (
        "devices",
        List(
            &Object(&[
                ("allow", SWITCH),
                ("type", Leaf(&[r#""a""#, r#""b""#, r#""c""#])),
                ("major", DEVICE_NUMBER),
                ("minor", DEVICE_NUMBER),
                ("access", Leaf(&[r#""r""#, r#""m""#, r#""rwm""#])),
            ]),
            &[
                r#"{"allow":true,"access":"rwm"}"#,
                r#"{"allow":true,"type":"b","major":254,"minor":0,"access":"rwm"}"#,
                r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"}"#,
                r#"{"allow":true,"type":"c","access":"m"}"#,
            ],
        ),
    ),
    (
        "memory",
        Object(&[
            ("limit", COUNT),
            ("reservation", COUNT),
            ("swap", COUNT),
            ("kernel", COUNT),
            ("kernelTCP", COUNT),
            ("swappiness", Leaf(&["0", "60", "100"])),
            ("disableOOMKiller", SWITCH),
            ("useHierarchy", SWITCH),
            ("checkBeforeUpdate", SWITCH),
        ]),
    ),
    (
        "cpu",
        Object(&[
            ("shares", COUNT),
            ("quota", COUNT),
            ("burst", COUNT),
            ("period", COUNT),
            ("realtimeRuntime", COUNT),
            ("realtimePeriod", COUNT),
            ("cpus", Leaf(&[r#""0""#, r#""0-1""#, r#""0-4095""#])),
            ("mems", Leaf(&[r#""0""#])),
            ("idle", COUNT),
        ]),
    ),
    ("pids", Object(&[("limit", COUNT)])),
    (
        "blockIO",
        Object(&[
            ("weight", Leaf(&["10", "100", "1000"])),
            ("leafWeight", COUNT),
            (
                "weightDevice",
                List(&Object(&[("major", DEVICE_NUMBER), ("weight", COUNT)]), &[r#"{"major":8,"minor":0}"#]),
            ),
            ("throttleReadBpsDevice", THROTTLE),
            ("throttleWriteBpsDevice", THROTTLE),
            ("throttleReadIOPSDevice", THROTTLE),
            ("throttleWriteIOPSDevice", THROTTLE),
        ]),
    ),
    (
        "hugepageLimits",
        List(
            &Object(&[("pageSize", Leaf(&[r#""2MB""#, r#""../x""#])), ("limit", COUNT)]),
            &[r#"{"pageSize":"2MB","limit":0}"#],
        ),
    ),
    (
        "network",
        Object(&[
            ("classID", COUNT),
            ("priorities", List(&Object(&[("name", TEXT), ("priority", COUNT)]), &[r#"{"name":"lo","priority":1}"#])),
        ]),
    ),
    ("rdma", Map(&[("mlx5_1", &[r#"{"hcaHandles":3}"#, "{}"])])),
    (
        "unified",
        Map(&[
            ("memory.oom.group", &[r#""1""#, r#""2""#]),
            ("memory.swap.max", &[r#""0""#, r#""max""#]),
            ("memory.max", &[r#""max""#]),
            ("cgroup.procs", &[r#""1""#]),
        ]),
    ),
]);

const THROTTLE: Field = List(
    &Object(&[("major", DEVICE_NUMBER), ("minor", DEVICE_NUMBER), ("rate", COUNT)]),
    &[r#"{"major":8,"minor":0,"rate":1048576}"#],
);
