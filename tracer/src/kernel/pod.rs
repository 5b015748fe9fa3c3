//! Values that are copied to and from the kernel's maps byte by byte.

use zerocopy::{FromBytes, IntoBytes};

/// Compiles only if a `T` has no padding, and any bytes are a `T`.
pub(crate) const fn is_plain<T: IntoBytes + FromBytes>() {}

/// A type around one of the ABI, as aya wants it.
macro_rules! pod {
    ($name:ident, $inner:ty) => {
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        struct $name($inner);
        const _: () = $crate::kernel::pod::is_plain::<$inner>();
        // SAFETY: `is_plain` has proved that there is no padding and that any bytes are valid.
        unsafe impl aya::Pod for $name {}
    };
}
pub(crate) use pod;
