//! Finds the names of containers, pods and units in the path of a cgroup. Knows the patterns of docker, containerd, CRI-O,
//! podman, ECS, LXC, systemd-nspawn, libvirt, the kubelet and systemd, with both cgroup drivers.

use crate::model::{Container, Pod};

/// The container, pod and unit that the path of a cgroup names, and their names if they were looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupNames {
    pub(super) container: Option<Container>,
    pub(super) pod: Option<Pod>,
    pub(super) unit: Option<String>,
    /// The container is one of the pod, and not one that runs in a container of the pod, or around the pod.
    pub(super) is_of_pod: bool,
}

impl CgroupNames {
    /// Fills missing names from `other`.
    pub(super) fn or(self, other: Self) -> Self {
        let is_of_pod = if self.container.is_some() { self.is_of_pod } else { other.is_of_pod };
        Self {
            container: self.container.or(other.container),
            pod: self.pod.or(other.pod),
            unit: self.unit.or(other.unit),
            is_of_pod,
        }
    }

    /// Parses a path such as `/system.slice/docker-<id>.scope`. The innermost match counts.
    pub(super) fn of(path: &str) -> Self {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let mut names = Self::default();
        let mut is_below_pod = false;
        for (at, segment) in segments.iter().enumerate() {
            if let Some(uid) = pod_uid(segment) {
                names.pod = Some(Pod::new(uid));
                (is_below_pod, names.is_of_pod) = (true, false);
            }
            let parent = at.checked_sub(1).map(|before| segments[before]);
            if let Some(container) = container(segment, parent, names.pod.is_some()) {
                names.container = Some(container);
                (names.is_of_pod, is_below_pod) = (is_below_pod, false);
            } else if let Some(container) = machine(segment, segments.get(at + 1).copied()) {
                names.container = Some(container);
                (names.is_of_pod, is_below_pod) = (false, false);
                if segment.ends_with(".service") {
                    names.unit = Some((*segment).to_owned());
                }
            } else if is_unit(segment) {
                names.unit = Some((*segment).to_owned());
            }
        }
        names
    }
}

/// `kubepods-burstable-pod<uid with _>.slice` or `pod<uid>`.
fn pod_uid(segment: &str) -> Option<String> {
    let slice = segment.split(':').next().unwrap_or(segment);
    let start = if slice.contains("kubepods") { slice.rfind("-pod")? + 4 } else { 3 };
    if !slice.contains("kubepods") && !slice.starts_with("pod") {
        return None;
    }
    let uid = slice.get(start..)?.trim_end_matches(".slice").replace('_', "-");
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

fn container(segment: &str, parent: Option<&str>, in_pod: bool) -> Option<Container> {
    let found = |id: &str, runtime: Option<&'static str>| Some(Container::new(id.to_owned(), runtime));
    // containerd without systemd slices: "<slice>:<prefix>:<id>".
    if let [_, prefix, id] = segment.split(':').collect::<Vec<_>>()[..]
        && is_id(id)
    {
        return found(id, runtime(prefix));
    }
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    if let Some((prefix, id)) = name.rsplit_once('-')
        && is_id(id)
    {
        // conmon runs outside of the container that it watches.
        return if prefix.ends_with("conmon") { None } else { found(id, runtime(prefix)) };
    }
    if is_id(name) {
        let by_parent = match parent {
            Some("docker") => Some("docker"),
            Some(parent) if parent.starts_with("libpod") => Some("podman"),
            _ if in_pod => Some("cri"),
            Some(parent) if is_hex(parent, 32) => Some("ecs"),
            _ => None,
        };
        return found(name, by_parent);
    }
    // ECS on newer agents: "<32 hex>-<number>".
    if let Some((task, number)) = name.split_once('-')
        && is_hex(task, 32)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        return found(name, Some("ecs"));
    }
    if let Some(name) = segment.strip_prefix("lxc.payload.") {
        return found(name, Some("lxc"));
    }
    (parent == Some("lxc")).then(|| found(segment, Some("lxc"))).flatten()
}

/// A machine that is registered with systemd-machined: a container, or a virtual machine (runtime `libvirt`). libvirt's names are `qemu-<id>-<name>` and `lxc-<id>-<name>`;
/// systemd-nspawn puts its container below `payload` and itself below `supervisor`. Other programs register machines too.
fn machine(segment: &str, below: Option<&str>) -> Option<Container> {
    let is_nspawn = matches!(below, Some("payload" | "supervisor"));
    let between = |prefix, suffix| segment.strip_prefix(prefix)?.strip_suffix(suffix);
    let name = between("machine-", ".scope")
        .or_else(|| between("systemd-nspawn@", ".service").filter(|_| is_nspawn));
    let id = unescaped(name?);
    let is_libvirt = id
        .strip_prefix("qemu-")
        .or_else(|| id.strip_prefix("lxc-"))
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(number, name)| {
            !name.is_empty() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
    let runtime = match (is_nspawn, is_libvirt) {
        (true, _) => Some("nspawn"),
        (false, true) => Some("libvirt"),
        (false, false) => None,
    };
    Some(Container::new(id, runtime))
}

/// A name without systemd's escapes (`\x2d`).
fn unescaped(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => bytes.extend(format!("\\x{part}").as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn runtime(prefix: &str) -> Option<&'static str> {
    match prefix {
        "docker" => Some("docker"),
        "cri-containerd" | "containerd" | "nerdctl" => Some("containerd"),
        "crio" => Some("cri-o"),
        "libpod" => Some("podman"),
        _ => None,
    }
}

fn is_unit(segment: &str) -> bool {
    segment.ends_with(".service") || segment.ends_with(".scope")
}

fn is_id(text: &str) -> bool {
    is_hex(text, 64)
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c0e6ad1f7c2f5c1d64c4a50b6f3a0a9b64c5d3c3b0c6e8d4cbb4b1a2f9e77";
    const POD: &str = "abcd1234-12ab-34cd-56ef-0123456789ab";
    const TASK: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn every_runtime_is_recognised() {
        let pod = POD.replace('-', "_");
        for (path, runtime, pod, unit) in [
            (format!("/docker/{ID}"), Some("docker"), None, None),
            (format!("/system.slice/docker-{ID}.scope"), Some("docker"), None, None),
            (format!("/docker/{ID}/init.scope"), Some("docker"), None, Some("init.scope")),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod}.slice/cri-containerd-{ID}.scope"
                ),
                Some("containerd"),
                Some(POD),
                None,
            ),
            (
                format!("/kubepods.slice/kubepods-pod{pod}.slice/crio-{ID}.scope"),
                Some("cri-o"),
                Some(POD),
                None,
            ),
            (format!("/kubepods/besteffort/pod{POD}/{ID}"), Some("cri"), Some(POD), None),
            (
                format!(
                    "/system.slice/containerd.service/kubepods-burstable-pod{pod}.slice:cri-containerd:{ID}"
                ),
                Some("containerd"),
                Some(POD),
                Some("containerd.service"),
            ),
            (
                format!(
                    "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{pod}.slice/cri-containerd-{ID}.scope"
                ),
                Some("containerd"),
                Some(POD),
                None,
            ),
            (format!("/machine.slice/libpod-{ID}.scope/container"), Some("podman"), None, None),
            (
                format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
                Some("podman"),
                None,
                Some("user@1000.service"),
            ),
            (format!("/libpod_parent/libpod-{ID}"), Some("podman"), None, None),
            (format!("/ecs/{TASK}/{ID}"), Some("ecs"), None, None),
        ] {
            let names = CgroupNames::of(&path);
            let container = Container::new(ID.into(), runtime);
            assert_eq!(names.container, Some(container), "{path}");
            assert_eq!(names.pod.map(|pod| pod.uid).as_deref(), pod, "{path}");
            assert_eq!(names.unit.as_deref(), unit, "{path}");
        }
    }

    #[test]
    fn names_instead_of_ids() {
        for (path, id, runtime) in [
            ("/lxc.payload.web1/system.slice/x.service".to_owned(), "web1", "lxc"),
            ("/lxc/web1".to_owned(), "web1", "lxc"),
            ("/machine.slice/machine-my\\x2dbox.scope/payload/system.slice".to_owned(), "my-box", "nspawn"),
            ("/machine.slice/machine-box.scope/supervisor".to_owned(), "box", "nspawn"),
            ("/machine.slice/systemd-nspawn@my\\x2dbox.service/payload".to_owned(), "my-box", "nspawn"),
            (
                "/machine.slice/machine-qemu\\x2d12\\x2dweb\\x2d1.scope/libvirt/emulator".to_owned(),
                "qemu-12-web-1",
                "libvirt",
            ),
            ("/machine.slice/machine-lxc\\x2d3\\x2ddb.scope".to_owned(), "lxc-3-db", "libvirt"),
            (format!("/ecs/{TASK}-1234567890"), &format!("{TASK}-1234567890"), "ecs"),
        ] {
            let container = Container::new(id.into(), Some(runtime));
            assert_eq!(CgroupNames::of(&path).container, Some(container), "{path}");
        }
    }

    #[test]
    fn a_machine_of_an_unknown_manager_has_no_runtime() {
        for (path, id) in [
            ("/machine.slice/machine-my\\x2dbox.scope", "my-box"),
            ("/machine.slice/machine-qemu\\x2dbox.scope", "qemu-box"),
            ("/machine.slice/machine-qemu\\x2d12\\x2d.scope", "qemu-12-"),
            ("/machine.slice/machine-a\\x5fb\\xzz.scope", "a_b\\xzz"),
        ] {
            assert_eq!(CgroupNames::of(path).container, Some(Container::new(id.into(), None)), "{path}");
        }
    }

    #[test]
    fn which_container_is_one_of_the_pod() {
        let inner = ID.replace('3', "4");
        for (path, is_of_pod) in [
            (format!("/kubepods/burstable/pod{POD}/{ID}"), true),
            (format!("/docker/{inner}/kubepods/pod{POD}/{ID}"), true),
            (format!("/kubepods/pod{POD}/{inner}/docker/{ID}"), false),
            (format!("/docker/{ID}/kubepods/pod{POD}"), false),
            (format!("/kubepods/pod{POD}"), false),
            (format!("/docker/{ID}"), false),
        ] {
            let names = CgroupNames::of(&path);
            assert_eq!(names.is_of_pod, is_of_pod, "{path}");
            assert!(names.container.is_none_or(|container| container.id == ID), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_is_none() {
        for (path, unit) in [
            ("/".to_owned(), None),
            ("/system.slice/nginx.service".to_owned(), Some("nginx.service")),
            ("/machine.slice/systemd-nspawn@box.service".to_owned(), Some("systemd-nspawn@box.service")),
            ("/user.slice/user-0.slice/session-3.scope".to_owned(), Some("session-3.scope")),
            (format!("/machine.slice/libpod-conmon-{ID}.scope"), Some(&*format!("libpod-conmon-{ID}.scope"))),
        ] {
            let names = CgroupNames::of(&path);
            assert_eq!(names.container, None, "{path}");
            assert_eq!(names.unit.as_deref(), unit, "{path}");
        }
    }
}
