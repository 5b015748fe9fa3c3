//! The machines that sockstate runs on.

use clap::ValueEnum;

/// A processor architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// The architecture that is tested on every kernel.
    #[value(name = "x86_64")]
    X86_64,
    /// Arm, 64 bits.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// Rust's and the kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Debian's name.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The end of the names of Debian's kernels with a flavour (`rt`, `cloud`, `16k`, or none).
    pub fn flavour(self, flavour: &str) -> String {
        match flavour {
            "" => self.debian().to_owned(),
            "16k" => format!("{}-16k", self.debian()),
            other => format!("{other}-{}", self.debian()),
        }
    }

    /// Rust's target for programs of user space.
    pub fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.name())
    }

    /// Rust's target for programs of user space that need no library.
    pub fn static_target(self) -> String {
        format!("{}-unknown-linux-musl", self.name())
    }

    /// The QEMU program, and the arguments that select the machine.
    pub fn qemu(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::X86_64 => ("qemu-system-x86_64", &["-cpu", "max,la57=off"]),
            // Emulating Arm's own algorithm of pointer authentication would take most of the time.
            Self::Aarch64 => ("qemu-system-aarch64", &["-M", "virt", "-cpu", "max,pauth-impdef=on"]),
        }
    }

    /// The kernel's parameters in such a machine: its console is the serial port.
    pub fn parameters(self) -> &'static str {
        match self {
            // On a busy host, an emulated timer may be late at the kernel's check, and the kernel panics.
            Self::X86_64 => "console=ttyS0 no_timer_check",
            Self::Aarch64 => "console=ttyAMA0",
        }
    }
}
