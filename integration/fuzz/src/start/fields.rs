//! Every field of the OCI runtime-spec 1.2 (`config.md`, `config-linux.md`) and what 1.3 adds for Linux, each with values that
//! are worth a try: good ones, and such as a container would get out with. Written down here, not taken from the code under test.

/// What stands at one place of a spec. Values are JSON text.
#[derive(Debug)]
pub(super) enum Field {
    Leaf(&'static [&'static str]),
    Object(&'static [(&'static str, Field)]),
    /// A list: of what, and whole items to put in.
    List(&'static Field, &'static [&'static str]),
    /// Keys and values that anybody chooses.
    Map(&'static [(&'static str, &'static [&'static str])]),
}

mod linux;

use Field::{Leaf, List, Map, Object};
use linux::LINUX;

/// For every leaf: what no field wants, and the ends of numbers.
pub(super) const ANYTHING: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "2147483648",
    "4294967295",
    "9223372036854775807",
    "18446744073709551615",
    "1e3",
    "0.5",
    r#""""#,
    r#""x""#,
    r#""/""#,
    r#""..""#,
    r#""/proc/self/root""#,
    r#""a\u0000b""#,
    r#""a\nb""#,
    r#""é\u202e""#,
    "[]",
    "{}",
    r#"["x"]"#,
    r#"{"x":1}"#,
];

const NOTHING: &[&str] = &[];
const SWITCH: Field = Leaf(&["true", "false"]);
const TEXT: Field = Leaf(&[r#""a""#, r#""/bin/sh""#, r#""-c""#]);
const COUNT: Field = Leaf(&["1", "1024", "1048576", "4194304", "4611686018427387904"]);
const DEVICE_NUMBER: Field = Leaf(&["-1", "1", "3", "5", "8", "10", "136", "200", "229", "254"]);
const ID: Field = Leaf(&["0", "1", "1000", "65532", "2147483647", "2147483648", "4294967294"]);
const PATH: Field = Leaf(&[
    r#""/etc""#,
    r#""/tmp/x""#,
    r#""/a/../etc""#,
    r#""relative""#,
    r#""/proc/kcore""#,
    r#""/proc/../proc/sys""#,
    r#""/sys/firmware/""#,
]);

const CAPABILITIES: Field = List(
    &Leaf(NOTHING),
    &[
        r#""CAP_NET_BIND_SERVICE""#,
        r#""CAP_CHOWN""#,
        r#""CAP_MKNOD""#,
        r#""CAP_SETUID""#,
        r#""CAP_NET_RAW""#,
        r#""CAP_NET_ADMIN""#,
        r#""CAP_SYS_ADMIN""#,
        r#""CAP_SYS_PTRACE""#,
        r#""CAP_SYS_MODULE""#,
        r#""CAP_DAC_READ_SEARCH""#,
        r#""CAP_BPF""#,
        r#""CAP_CHECKPOINT_RESTORE""#,
        r#""cap_sys_admin""#,
        r#""SYS_ADMIN""#,
        r#""CAP_NOBODY_KNOWS""#,
    ],
);

pub(super) const SPEC: Field = Object(&[
    ("ociVersion", Leaf(&[r#""1.0.0""#, r#""1.2.1""#, r#""1.3.0""#, r#""1.4.0""#, r#""2.0.0""#, r#""1.0.2-dev""#])),
    ("root", Object(&[("path", Leaf(&[r#""rootfs""#, r#""/""#, r#""../rootfs""#])), ("readonly", SWITCH)])),
    ("process", PROCESS),
    ("hostname", TEXT),
    ("domainname", TEXT),
    ("mounts", MOUNTS),
    (
        "hooks",
        Object(&[
            ("prestart", HOOK),
            ("createRuntime", HOOK),
            ("createContainer", HOOK),
            ("startContainer", HOOK),
            ("poststart", HOOK),
            ("poststop", HOOK),
        ]),
    ),
    (
        "annotations",
        Map(&[
            ("boltseal.dev/owner", &[r#""team-demo@example.com""#, r#""mallory@evil.example""#, r#""*""#]),
            ("boltseal.dev/ports", &[r#""bind=8080""#, r#""bind=1-65535""#, r#""connect=*:*""#]),
            ("boltseal.dev/sensitivity", &[r#""*""#, r#""secret""#]),
            ("boltseal.dev/level", &[r#""observe""#]),
            ("io.kubernetes.cri.sandbox-id", &[r#""other""#]),
            ("io.kubernetes.cri.container-type", &[r#""sandbox""#]),
            ("run.oci.keep_original_groups", &["\"1\""]),
            ("cdi.k8s.io/x", &[r#""vendor.com/class=dev""#]),
        ]),
    ),
    ("linux", LINUX),
    ("solaris", Object(&[("milestone", TEXT)])),
    ("windows", Object(&[("layerFolders", List(&TEXT, NOTHING))])),
    ("vm", Object(&[("kernel", Object(&[("path", PATH)]))])),
    ("zos", Object(&[("namespaces", List(&TEXT, NOTHING))])),
    ("freebsd", Object(&[("devices", List(&TEXT, NOTHING))])),
]);

const PROCESS: Field = Object(&[
    ("terminal", SWITCH),
    ("consoleSize", Object(&[("height", COUNT), ("width", COUNT)])),
    (
        "user",
        Object(&[
            ("uid", ID),
            ("gid", ID),
            ("umask", Leaf(&["0", "18", "63", "511", "4095"])),
            ("additionalGids", List(&ID, &["0", "5", "6"])),
            ("username", Leaf(&[r#""root""#])),
        ]),
    ),
    ("args", List(&TEXT, NOTHING)),
    ("commandLine", TEXT),
    (
        "env",
        List(
            &Leaf(NOTHING),
            &[
                r#""A=1""#,
                r#""HOME=""#,
                r#""HOME=/root""#,
                r#""LISTEN_FDS=3""#,
                r#""LD_PRELOAD=/x.so""#,
                r#""PATH=/x""#,
                r#""=x""#,
                r#""NOVALUE""#,
                r#""_CONTAINERS_USERNS_CONFIGURED=1""#,
            ],
        ),
    ),
    ("cwd", Leaf(&[r#""/tmp""#, r#""tmp""#, r#""/proc/self/fd/7""#, r#""/a/../proc""#, r#""/nowhere/at/all""#])),
    (
        "capabilities",
        Object(&[
            ("bounding", CAPABILITIES),
            ("effective", CAPABILITIES),
            ("inheritable", CAPABILITIES),
            ("permitted", CAPABILITIES),
            ("ambient", CAPABILITIES),
        ]),
    ),
    (
        "rlimits",
        List(
            &Object(&[
                ("type", Leaf(&[r#""RLIMIT_CORE""#, r#""RLIMIT_RTPRIO""#, r#""RLIMIT_X""#])),
                ("hard", COUNT),
                ("soft", COUNT),
            ]),
            &[r#"{"type":"RLIMIT_NPROC","hard":64,"soft":64}"#, r#"{"type":"RLIMIT_MEMLOCK","hard":1,"soft":2}"#],
        ),
    ),
    ("noNewPrivileges", SWITCH),
    ("apparmorProfile", Leaf(&[r#""boltseal-default""#, r#""unconfined""#, r#""cri-containerd.apparmor.d""#])),
    ("oomScoreAdj", Leaf(&["-1000", "-999", "500", "1000", "5000"])),
    (
        "selinuxLabel",
        Leaf(&[
            r#""system_u:system_r:boltseal_t:s0:c1,c2""#,
            r#""system_u:system_r:spc_t:s0""#,
            r#""system_u:system_r:boltseal_t:s0-s0:c0.c1023""#,
        ]),
    ),
    ("ioPriority", Object(&[("class", Leaf(&[r#""IOPRIO_CLASS_RT""#])), ("priority", COUNT)])),
    (
        "scheduler",
        Object(&[
            ("policy", Leaf(&[r#""SCHED_FIFO""#])),
            ("nice", Leaf(&["-20"])),
            ("priority", COUNT),
            ("flags", List(&TEXT, NOTHING)),
            ("runtime", COUNT),
            ("deadline", COUNT),
            ("period", COUNT),
        ]),
    ),
    ("execCPUAffinity", Object(&[("initial", TEXT), ("final", TEXT)])),
]);

const HOOK: Field = List(
    &Object(&[("path", PATH), ("args", List(&TEXT, NOTHING)), ("env", List(&TEXT, NOTHING)), ("timeout", COUNT)]),
    &[
        r#"{"path":"/opt/hook","args":["hook"]}"#,
        r#"{"path":"/bin/sh","args":["sh","-c","id"],"env":["LD_PRELOAD=/x"],"timeout":1}"#,
    ],
);

/// Binds name what `world` knows: own volumes, granted folders, and all that must never be mounted.
const MOUNTS: Field = List(
    &Object(&[
        (
            "destination",
            Leaf(&[
                r#""/""#,
                r#""/proc""#,
                r#""/proc/sys""#,
                r#""/sys""#,
                r#""/dev""#,
                r#""/dev/null""#,
                r#""/dev/pts/0""#,
                r#""/dev/shm""#,
                r#""/data""#,
                r#""/data/""#,
                r#""//data""#,
                r#""/a/../proc""#,
            ]),
        ),
        (
            "type",
            Leaf(&[
                r#""bind""#,
                r#""proc""#,
                r#""sysfs""#,
                r#""tmpfs""#,
                r#""devpts""#,
                r#""mqueue""#,
                r#""cgroup""#,
                r#""cgroup2""#,
                r#""overlay""#,
                r#""ext4""#,
                r#""none""#,
            ]),
        ),
        (
            "source",
            Leaf(&[
                r#""/etc""#,
                r#""/run/containerd/containerd.sock""#,
                r#""/opt/readable""#,
                r#""/opt/writable""#,
                r#""/alias""#,
                r#""/dev/vda""#,
                r#""/var/lib/kubelet/pods/u1/volumes/kubernetes.io~empty-dir/tmp""#,
                r#""/var/lib/kubelet/pods/u2/volumes/kubernetes.io~secret/s""#,
            ]),
        ),
        (
            "options",
            List(
                &Leaf(NOTHING),
                &[
                    r#""ro""#,
                    r#""rw""#,
                    r#""rro""#,
                    r#""rrw""#,
                    r#""bind""#,
                    r#""rbind""#,
                    r#""suid""#,
                    r#""dev""#,
                    r#""exec""#,
                    r#""noexec""#,
                    r#""rsuid""#,
                    r#""shared""#,
                    r#""rshared""#,
                    r#""rslave""#,
                    r#""unbindable""#,
                    r#""remount""#,
                    r#""idmap""#,
                    r#""size=0""#,
                    r#""size=1m""#,
                    r#""size=0,nr_inodes=1""#,
                    r#""mode=777""#,
                    r#""hidepid=0""#,
                    r#""lowerdir=/etc""#,
                    r#""context=x""#,
                ],
            ),
        ),
        ("uidMappings", MAPS),
        ("gidMappings", MAPS),
    ]),
    &[
        r#"{"destination":"/etc/host","type":"bind","source":"/etc","options":["rbind","rw"]}"#,
        r#"{"destination":"/sock","type":"bind","source":"/run/containerd/containerd.sock","options":["bind","ro"]}"#,
        r#"{"destination":"/r","type":"bind","source":"/opt/readable","options":["rbind","ro"]}"#,
        r#"{"destination":"/w","type":"bind","source":"/opt/writable","options":["rbind","rw","suid","exec"]}"#,
        r#"{"destination":"/plugins","type":"bind","source":"/opt/writable","options":["rbind","rslave","rw"]}"#,
        r#"{"destination":"/alias","type":"bind","source":"/alias","options":["bind","ro"]}"#,
        r#"{"destination":"/disk","type":"bind","source":"/dev/vda","options":["bind","ro"]}"#,
        r#"{"destination":"/e","type":"none","source":"/var/lib/kubelet/pods/u1/volumes/kubernetes.io~empty-dir/tmp","options":["rbind","rw"]}"#,
        r#"{"destination":"/scratch","type":"tmpfs","source":"tmpfs","options":["rw","exec","mode=1777"]}"#,
        r#"{"destination":"/proc/self","type":"tmpfs","source":"tmpfs"}"#,
        r#"{"destination":"/p","type":"proc","source":"proc"}"#,
        r#"{"destination":"/o","type":"overlay","source":"overlay","options":["lowerdir=/etc,upperdir=/tmp"]}"#,
        r#"{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["rw"]}"#,
    ],
);

const MAPS: Field = List(
    &Object(&[("containerID", ID), ("hostID", ID), ("size", COUNT)]),
    &[r#"{"containerID":0,"hostID":0,"size":65536}"#, r#"{"containerID":0,"hostID":100000,"size":65536}"#],
);
