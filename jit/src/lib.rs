//! The engines that run IR.
//!
//! [`context`] is the state they share with the machine; [`interp`] executes the operations of cached blocks one by one;
//! [`softfloat`] is the exact floating point that it uses and that other engines are judged by. [`native`] runs generated
//! code, which `cache` keeps and a backend makes: `x64` on x86-64 hosts, `aarch64` on aarch64 hosts; what they share is in
//! `codegen`. [`inspect`] shows a user what they do.

// Each backend assembles on every host with one, where tests look at what it makes. Other hosts have the interpreter only.
#[cfg(any(test, target_arch = "aarch64"))]
#[cfg_attr(
    not(target_arch = "aarch64"),
    allow(dead_code, reason = "only tests use the backend of another host")
)]
mod aarch64;
mod address_map;
pub mod breakpoints;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod cache;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod codegen;
pub mod context;
mod engine;
pub mod inspect;
pub mod interp;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub mod native;
pub mod softfloat;
pub mod time;
#[cfg(any(test, target_arch = "x86_64"))]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "only tests use the backend of another host")
)]
mod x64;

#[cfg(target_arch = "aarch64")]
use aarch64 as backend;
#[cfg(target_arch = "x86_64")]
use x64 as backend;

pub use breakpoints::Breakpoints;
pub use context::{Exit, Hart, HartState};
pub use engine::{Engine, EngineKind, Shared};
pub use interp::Interp;
