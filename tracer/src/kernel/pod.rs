//! Types that are copied byte by byte to and from the kernel's maps.

use zerocopy::{FromBytes, IntoBytes};

/// Compiles only if `T` has no padding and any bytes are a valid `T`.
pub(crate) const fn is_plain<T: IntoBytes + FromBytes>() {}

/// Defines a wrapper of an ABI type that implements `aya::Pod`.
macro_rules! pod {
    ($name:ident, $inner:ty) => {
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        struct $name($inner);
        const _: () = $crate::kernel::pod::is_plain::<$inner>();
        // SAFETY: `is_plain` proves that the type has no padding and that any bytes are valid.
        unsafe impl aya::Pod for $name {}
    };
}
pub(crate) use pod;
