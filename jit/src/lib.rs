//! The engines that run IR.
//!
//! [`context`] is the state they share with the machine; [`interp`] executes the operations of cached blocks one by one;
//! [`softfloat`] is the exact floating point that it uses and that other engines are judged by. [`native`] runs generated
//! code, which `cache` keeps and a backend makes: `x64` on x86-64 hosts. [`inspect`] shows a user what they do.

mod address_map;
pub mod breakpoints;
#[cfg(target_arch = "x86_64")]
mod cache;
#[cfg(target_arch = "x86_64")]
mod codegen;
pub mod context;
mod engine;
pub mod inspect;
pub mod interp;
#[cfg(target_arch = "x86_64")]
pub mod native;
pub mod softfloat;
#[cfg(target_arch = "x86_64")]
mod x64;

#[cfg(target_arch = "x86_64")]
use x64 as backend;

pub use breakpoints::Breakpoints;
pub use context::{Exit, Hart, HartState};
pub use engine::{Engine, EngineKind, Shared};
pub use interp::Interp;
