//! How an access that the guest may not make is reported to it.

/// An exception raised by a guest instruction; never an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Exception code for `mcause`/`scause`, one of [`cause`].
    pub cause: u64,
    /// Value for `mtval`/`stval`: for faults of memory accesses, the virtual address of the first byte that could
    /// not be accessed, or the start of the second page where only that one faults.
    pub tval: u64,
}

/// Exception codes (Privileged 3.1.15, table of `mcause` values).
#[expect(missing_docs, reason = "named as the specification names them")]
pub mod cause {
    pub const INSTRUCTION_MISALIGNED: u64 = 0;
    pub const INSTRUCTION_ACCESS_FAULT: u64 = 1;
    pub const ILLEGAL_INSTRUCTION: u64 = 2;
    pub const BREAKPOINT: u64 = 3;
    pub const LOAD_MISALIGNED: u64 = 4;
    pub const LOAD_ACCESS_FAULT: u64 = 5;
    pub const STORE_MISALIGNED: u64 = 6;
    pub const STORE_ACCESS_FAULT: u64 = 7;
    pub const ECALL_U: u64 = 8;
    pub const ECALL_S: u64 = 9;
    pub const ECALL_M: u64 = 11;
    pub const INSTRUCTION_PAGE_FAULT: u64 = 12;
    pub const LOAD_PAGE_FAULT: u64 = 13;
    pub const STORE_PAGE_FAULT: u64 = 15;
}

/// Privilege modes, with their encoding in `mstatus.MPP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Privilege {
    /// U-mode
    User = 0,
    /// S-mode
    Supervisor = 1,
    /// M-mode
    Machine = 3,
}

/// What an instruction wants of an address. AMOs and SC are stores, LR is a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Load,
    /// A store.
    Store,
    /// An instruction fetch.
    Fetch,
}

/// Nothing answers at the physical address, or not in that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessFault;

/// Why an address could not be translated; with the access it makes a [`Trap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The page table does not allow it.
    Page,
    /// Physical memory protection or attributes do not allow it.
    Access,
}

impl Fault {
    /// The trap that an `access` to `va` raises.
    pub fn trap(self, access: Access, va: u64) -> Trap {
        let cause = match (self, access) {
            (Fault::Page, Access::Load) => cause::LOAD_PAGE_FAULT,
            (Fault::Page, Access::Store) => cause::STORE_PAGE_FAULT,
            (Fault::Page, Access::Fetch) => cause::INSTRUCTION_PAGE_FAULT,
            (Fault::Access, Access::Load) => cause::LOAD_ACCESS_FAULT,
            (Fault::Access, Access::Store) => cause::STORE_ACCESS_FAULT,
            (Fault::Access, Access::Fetch) => cause::INSTRUCTION_ACCESS_FAULT,
        };
        Trap { cause, tval: va }
    }
}
