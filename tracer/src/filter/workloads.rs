//! The filter by pod and container. Their names are known to user space only, so the kernel programs decide nothing here.

use clap::{Args, builder::NonEmptyStringValueParser};

use crate::model::{Container, Pod, PodWorkload, SocketEntry, Subject, Workload};

/// Fewer characters of a container's id select nothing. Runtimes show this many.
const SHORT_ID: usize = 12;

/// The flags. A name that ends with `*` stands for all names that begin so.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Workloads {
    /// Kubernetes pod: NAME, NAMESPACE/NAME, or its uid. A * at the end stands for any rest: 'web-*'.
    #[arg(long, value_name = "POD", value_parser = NonEmptyStringValueParser::new(), value_delimiter = ',', help_heading = "Filter")]
    pub pod: Vec<String>,
    /// Kubernetes namespace; a * at the end stands for any rest. See --netns for network namespaces.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), value_delimiter = ',', help_heading = "Filter")]
    pub namespace: Vec<String>,
    /// What manages the Kubernetes pod: NAME, or KIND/NAME such as deployment/web. A * at the end stands for any rest. Only
    /// `sockstate run` with [kubernetes] knows it, and its recordings.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), value_delimiter = ',', help_heading = "Filter", hide_short_help = true)]
    pub workload: Vec<String>,
    /// Container: its name, its id, or at least 12 characters of its id. A * at the end stands for any rest.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), value_delimiter = ',', help_heading = "Filter")]
    pub container: Vec<String>,
}

impl Workloads {
    /// Whether a subject is wanted.
    #[must_use]
    pub fn wants(&self, subject: &Subject) -> bool {
        self.wants_workload(subject.into())
    }

    /// Whether a socket in a look was made in a wanted workload, or a process in one holds it.
    #[must_use]
    pub fn wants_entry(&self, entry: &SocketEntry) -> bool {
        let mut holders = entry.report.holders.iter();
        self.wants(&entry.subject) || holders.any(|holder| self.wants_workload((&*holder.process).into()))
    }

    fn wants_workload(&self, workload: Workload<'_>) -> bool {
        self.has_pod(workload.pod)
            && self.has_namespace(workload.pod)
            && self.has_workload(workload.pod)
            && self.has_container(workload.container)
    }

    fn has_pod(&self, pod: Option<&Pod>) -> bool {
        let is = |pod: &Pod| {
            let names = |wanted: &String| match wanted.split_once('/') {
                Some((namespace, name)) => {
                    pod.namespace.as_deref() == Some(namespace) && matches(name, pod.name.as_deref())
                }
                None => matches(wanted, pod.name.as_deref()) || *wanted == pod.uid,
            };
            self.pod.iter().any(names)
        };
        self.pod.is_empty() || pod.is_some_and(is)
    }

    fn has_namespace(&self, pod: Option<&Pod>) -> bool {
        let namespace = pod.and_then(|pod| pod.namespace.as_deref());
        self.namespace.is_empty() || self.namespace.iter().any(|wanted| matches(wanted, namespace))
    }

    fn has_workload(&self, pod: Option<&Pod>) -> bool {
        let is = |workload: &PodWorkload| {
            let names = |wanted: &String| match wanted.split_once('/') {
                Some((kind, name)) => {
                    kind.eq_ignore_ascii_case(&workload.kind) && matches(name, Some(&workload.name))
                }
                None => matches(wanted, Some(&workload.name)),
            };
            self.workload.iter().any(names)
        };
        self.workload.is_empty() || pod.and_then(|pod| pod.workload.as_ref()).is_some_and(is)
    }

    fn has_container(&self, container: Option<&Container>) -> bool {
        let is = |container: &Container| {
            self.container.iter().any(|wanted| {
                let is_id = wanted.len() >= SHORT_ID && container.id.starts_with(wanted.as_str());
                is_id || *wanted == container.id || matches(wanted, container.name.as_deref())
            })
        };
        self.container.is_empty() || container.is_some_and(is)
    }
}

fn matches(wanted: &str, name: Option<&str>) -> bool {
    name.is_some_and(|name| match wanted.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == wanted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_value_selects() {
        let id = "3f1c0e6ad1f7c2f5c1d64c4a50b6f3a0a9b64c5d3c3b0c6e8d4cbb4b1a2f9e77";
        let container = Container { name: Some("app".into()), ..Container::new(id.into(), None) };
        let workload = Some(PodWorkload { kind: "Deployment".into(), name: "web".into() });
        let (name, namespace) = (Some("web-1".into()), Some("shop".into()));
        let pod = Pod { name, namespace, workload, ..Pod::new("uid-1".into()) };
        let named = Workload { container: Some(&container), pod: Some(&pod), unit: None };
        let (container, pod) = (Container::new(id.into(), None), Pod::new("uid-1".into()));
        let unnamed = Workload { container: Some(&container), pod: Some(&pod), unit: None };
        let none = Workload { container: None, pod: None, unit: None };
        let list = |text: &str| -> Vec<String> { text.split_terminator(',').map(str::to_owned).collect() };
        for (pods, namespaces, containers, wanted) in [
            ("", "", "", [true, true, true]),
            ("web-1", "", "", [true, false, false]),
            ("web-2,web-1", "", "", [true, false, false]),
            ("web-2", "", "", [false, false, false]),
            ("web-*", "", "", [true, false, false]),
            ("*", "", "", [true, false, false]),
            ("shop/web-*", "", "", [true, false, false]),
            ("other/web-1", "", "", [false, false, false]),
            ("uid-1", "", "", [true, true, false]),
            ("", "shop", "", [true, false, false]),
            ("", "sho*", "", [true, false, false]),
            ("", "web-1", "", [false, false, false]),
            ("", "", "app", [true, false, false]),
            ("", "", "3f1c0e6ad1f7", [true, true, false]),
            ("", "", "3f1c0e6", [false, false, false]),
            ("", "", id, [true, true, false]),
            ("web-1", "shop", "app", [true, false, false]),
            ("web-1", "shop", "proxy", [false, false, false]),
        ] {
            let (pod, namespace, container) = (list(pods), list(namespaces), list(containers));
            let filter = Workloads { pod, namespace, container, ..Workloads::default() };
            let found = [named, unnamed, none].map(|workload| filter.wants_workload(workload));
            assert_eq!(found, wanted, "{filter:?}");
        }
        for (workload, wanted) in [
            ("web", true),
            ("we*", true),
            ("deployment/web", true),
            ("Deployment/*", true),
            ("statefulset/web", false),
            ("deployment/we", false),
            ("web-1", false),
        ] {
            let filter = Workloads { workload: list(workload), ..Workloads::default() };
            let found = [named, unnamed, none].map(|workload| filter.wants_workload(workload));
            assert_eq!(found, [wanted, false, false], "{filter:?}");
        }
    }
}
