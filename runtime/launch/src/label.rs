//! The mandatory label of the next execve: written, its result checked, and read back where the kernel tells it.
//! An unknown profile or context fails only this write (hardening notes: ignoring it means running unconfined).
use crate::error::LaunchError;
use crate::sys;
use boltseal_seal::Label;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// The attribute of this process that takes the label, opened while /proc can still be opened.
#[derive(Debug)]
pub(crate) struct Attribute {
    file: File,
    label: Label,
}

/// Where each module takes it (man 7 apparmor; selinux(8), attr/exec).
fn path(label: &Label) -> &'static str {
    match label {
        Label::AppArmor(_) => "/proc/self/attr/apparmor/exec",
        Label::Selinux(_) => "/proc/self/attr/exec",
    }
}

/// What /proc/PID/attr/current (AppArmor: attr/apparmor/current) shows once the label is in force.
pub(crate) fn expected(label: Option<&Label>) -> String {
    match label {
        Some(Label::AppArmor(name)) => format!("{name} (enforce)"),
        Some(Label::Selinux(context)) => context.clone(),
        None => String::new(),
    }
}

/// Waits until the label is in force on a process that has just executed: execve closes our pipe a moment before it
/// changes the credentials. A process that is gone needs no label.
pub(crate) fn in_force(proc: &Path, label: Option<&Label>, patience: Duration) -> Result<(), LaunchError> {
    let Some(label) = label else { return Ok(()) };
    let file = match label {
        Label::AppArmor(_) => "attr/apparmor/current",
        Label::Selinux(_) => "attr/current",
    };
    let until = Instant::now() + patience;
    loop {
        let actual = match sys::read_kernel(proc.join(file)) {
            Ok(text) => text.trim_end_matches(['\0', '\n']).to_owned(),
            Err(_) if !proc.exists() => return Ok(()),
            Err(e) => format!("unreadable: {e}"),
        };
        if actual == expected(Some(label)) {
            return Ok(());
        }
        if Instant::now() >= until {
            let line = format!("label in force is {actual:?}, approved is {:?}", expected(Some(label)));
            return Err(LaunchError::Inspection(vec![line]));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// SELinux: the kernel's word on whether it enforces, opened by the gate, since a container has no selinuxfs. None for
/// AppArmor, whose label says it.
pub(crate) fn enforcement(label: Option<&Label>) -> Result<Option<File>, LaunchError> {
    let Some(Label::Selinux(context)) = label else { return Ok(None) };
    let file = File::open("/sys/fs/selinux/enforce").map_err(|e| {
        LaunchError::Unsupported(format!("label {context:?}: whether SELinux enforces cannot be read: {e}"))
    })?;
    enforces(&file)?;
    Ok(Some(file))
}

/// Permissive, every label is but a name.
pub(crate) fn enforces(file: &File) -> Result<(), LaunchError> {
    use std::os::unix::fs::FileExt;
    let mut text = [0; 8];
    match file.read_at(&mut text, 0) {
        Ok(1..) if text[0] == b'1' => Ok(()),
        Ok(_) => Err(LaunchError::Inspection(vec!["SELinux is permissive".into()])),
        Err(e) => Err(LaunchError::io("read whether SELinux enforces")(e)),
    }
}

impl Attribute {
    pub(crate) fn open(label: &Label) -> Result<Self, LaunchError> {
        if name(label).is_empty() || name(label).contains(['\n', '\0']) {
            return Err(LaunchError::Other("the label is empty or holds a line break".into()));
        }
        let file = File::options().read(true).write(true).open(path(label)).map_err(|e| {
            LaunchError::Unsupported(format!(
                "{} cannot be opened, so the label {:?} cannot be set: {e}",
                path(label),
                name(label)
            ))
        })?;
        Ok(Self { file, label: label.clone() })
    }

    /// Sets the label for the next execve and reads it back.
    pub(crate) fn set(&mut self) -> Result<(), LaunchError> {
        let text = match &self.label {
            Label::AppArmor(name) => format!("exec {name}"),
            Label::Selinux(context) => context.clone(),
        };
        // One write: the kernel takes the label whole or not at all.
        let written = self.file.write(text.as_bytes());
        match written {
            Ok(n) if n == text.len() => {}
            Ok(n) => return Err(self.failed(&format!("only {n} bytes were taken"))),
            Err(e) => return Err(self.failed(&e.to_string())),
        }
        self.check()
    }

    /// Whether the label still waits for the execve.
    pub(crate) fn check(&mut self) -> Result<(), LaunchError> {
        let mut text = String::new();
        let read = self.file.rewind().and_then(|()| (&self.file).take(4096).read_to_string(&mut text));
        read.map_err(|e| self.failed(&format!("cannot be read back: {e}")))?;
        let actual = text.trim_end_matches(['\0', '\n']);
        if actual == expected(Some(&self.label)) {
            return Ok(());
        }
        Err(self.failed(&format!("reads back as {actual:?}")))
    }

    fn failed(&self, why: &str) -> LaunchError {
        LaunchError::Inspection(vec![format!("label {:?}: {why}", name(&self.label))])
    }
}

fn name(label: &Label) -> &str {
    match label {
        Label::AppArmor(name) | Label::Selinux(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_after_execve() {
        assert_eq!(expected(Some(&Label::AppArmor("boltseal-default".into()))), "boltseal-default (enforce)");
        assert_eq!(expected(Some(&Label::Selinux("a:b:c:s0:c1,c2".into()))), "a:b:c:s0:c1,c2");
        assert_eq!(expected(None), "");
    }

    #[test]
    fn a_label_that_nothing_enforces_is_an_error() {
        for label in [Label::AppArmor("no-such-profile".into()), Label::Selinux("no_u:no_r:no_t:s0".into())] {
            let result = Attribute::open(&label).and_then(|mut a| a.set());
            assert!(result.is_err(), "{label:?} was taken");
        }
    }

    #[test]
    fn permissive_is_an_error() {
        let path = std::env::temp_dir().join(format!("boltseal-enforce-{}", std::process::id()));
        for (text, holds) in [("1", true), ("1\n", true), ("0", false), ("", false)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(enforces(&File::open(&path).unwrap()).is_ok(), holds, "{text:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(enforcement(None).unwrap().is_none());
        assert!(enforcement(Some(&Label::AppArmor("p".into()))).unwrap().is_none());
    }

    #[test]
    fn a_label_with_a_line_break_is_refused() {
        assert!(Attribute::open(&Label::AppArmor("a\nb".into())).is_err());
        assert!(Attribute::open(&Label::Selinux(String::new())).is_err());
    }

    #[test]
    fn the_label_in_force_is_compared() {
        let proc = std::env::temp_dir().join(format!("boltseal-proc-{}", std::process::id()));
        std::fs::create_dir_all(proc.join("attr/apparmor")).unwrap();
        let check = |label: &Label| in_force(&proc, Some(label), Duration::from_millis(5));
        let apparmor = Label::AppArmor("p".into());
        assert!(matches!(check(&apparmor), Err(LaunchError::Inspection(l)) if l[0].contains("unreadable")));
        for (text, fits) in [("p (enforce)\n", true), ("p (complain)\n", false), ("unconfined\n", false), ("", false)] {
            std::fs::write(proc.join("attr/apparmor/current"), text).unwrap();
            assert_eq!(check(&apparmor).is_ok(), fits, "{text:?}");
        }
        std::fs::write(proc.join("attr/current"), "u:r:t:s0:c1\0").unwrap();
        assert_eq!(check(&Label::Selinux("u:r:t:s0:c1".into())), Ok(()));
        assert!(check(&Label::Selinux("u:r:t:s0:c2".into())).is_err());
        std::fs::remove_dir_all(&proc).unwrap();
        assert_eq!(check(&apparmor), Ok(()), "gone");
    }

    #[test]
    fn what_reads_back_differently_is_an_error() {
        // A plain file stands for an attribute that keeps what was written in another form.
        let dir = std::env::temp_dir().join(format!("boltseal-label-{}", std::process::id()));
        let open = || File::options().read(true).write(true).create(true).truncate(true).open(&dir).unwrap();
        let mut apparmor = Attribute { file: open(), label: Label::AppArmor("p".into()) };
        assert!(matches!(apparmor.set(), Err(LaunchError::Inspection(_))), "reads back as 'exec p'");
        let mut selinux = Attribute { file: open(), label: Label::Selinux("u:r:t:s0".into()) };
        assert_eq!(selinux.set(), Ok(()));
        std::fs::remove_file(&dir).unwrap();
    }
}
