//! The information of `sock_diag` about MPTCP: `struct mptcp_info` (`linux/mptcp.h`), and the attributes of a subflow.

use super::netlink::{MS, each_attribute, u32_at};
use crate::model::{MptcpPart, TcpTimes};

/// Offset of `mptcpi_last_data_sent`; this field and the ones after it exist since Linux 6.10.
const LAST_DATA_SENT: usize = 84;

/// An MPTCP socket without details.
pub(super) const WHOLE: MptcpPart = MptcpPart::Whole { token: None, subflows: 0 };

/// The MPTCP socket that a `struct mptcp_info` is of.
pub(super) fn whole(info: &[u8]) -> MptcpPart {
    const TOKEN: usize = 12;
    MptcpPart::Whole { token: u32_at(info, TOKEN).filter(|token| *token != 0), subflows: 0 }
}

/// Parses `INET_DIAG_ULP_INFO` of a TCP socket; `None` if its upper layer protocol is not MPTCP.
pub(super) fn subflow(ulp: &[u8]) -> Option<MptcpPart> {
    const INET_ULP_INFO_NAME: u16 = 1;
    const INET_ULP_INFO_MPTCP: u16 = 3;
    const MPTCP_SUBFLOW_ATTR_TOKEN_LOC: u16 = 2;
    let find =
        |bytes, wanted| each_attribute(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    if find(ulp, INET_ULP_INFO_NAME)? != b"mptcp\0" {
        return None;
    }
    let token = find(ulp, INET_ULP_INFO_MPTCP)
        .and_then(|info| find(info, MPTCP_SUBFLOW_ATTR_TOKEN_LOC))
        .and_then(|token| u32_at(token, 0))
        .filter(|token| *token != 0);
    Some(MptcpPart::Subflow { token })
}

/// The times in a `struct mptcp_info`.
pub(super) fn times(info: &[u8]) -> Option<TcpTimes> {
    let since_ns = |at: usize| u32_at(info, LAST_DATA_SENT + at).map(|ms| u64::from(ms) * MS);
    Some(TcpTimes {
        since_data_sent_ns: since_ns(0)?,
        since_data_received_ns: since_ns(4)?,
        since_ack_ns: since_ns(8)?,
        ..TcpTimes::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_kernels_that_have_them() {
        let mut info = vec![0; 96];
        info[84..88].copy_from_slice(&1_u32.to_ne_bytes());
        info[88..92].copy_from_slice(&2_u32.to_ne_bytes());
        info[92..96].copy_from_slice(&3_u32.to_ne_bytes());
        let found = times(&info).expect("times");
        assert_eq!(
            (found.since_data_sent_ns, found.since_data_received_ns, found.since_ack_ns),
            (MS, 2 * MS, 3 * MS)
        );
        assert_eq!(times(&info[..84]), None);
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn upper_layer_protocols() {
        let tokens = [attribute(1, &9_u32.to_ne_bytes()), attribute(2, &7_u32.to_ne_bytes())].concat();
        let mptcp = [attribute(1, b"mptcp\0"), attribute(3, &tokens)].concat();
        assert_eq!(subflow(&mptcp), Some(MptcpPart::Subflow { token: Some(7) }));
        assert_eq!(subflow(&attribute(1, b"mptcp\0")), Some(MptcpPart::Subflow { token: None }));
        assert_eq!(subflow(&attribute(1, b"tls\0")), None);
        assert_eq!(subflow(&mptcp[..7]), None);
    }
}
