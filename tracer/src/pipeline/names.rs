//! Network namespaces that a filter names: finds the namespaces that the names lead to now.

use super::{Streams, now_ns};
use crate::{enrich::netns_at, route::Router};

/// Looks up the names of all filters, and reports names that lead to another namespace than before.
pub(super) fn look_up_names(router: &Router, streams: &Streams) {
    for name in streams.routers().chain([router]).filter_map(Router::named_netns) {
        let began_ns = now_ns();
        let now = netns_at(name.path());
        if name.set_now(now, began_ns, now_ns()) {
            let path = name.path().display();
            match now {
                Some(inode) => message!(info: "network namespace {path} is {inode} now"),
                None => message!(info: "network namespace {path} is gone: waiting for it"),
            }
        }
    }
}
