//! The engines that run IR.
//!
//! [`context`] is the state they share with the machine; [`interp`] executes the operations of cached blocks one by one;
//! [`softfloat`] is the exact floating point that it uses and that other engines are judged by.

pub mod context;
pub mod interp;
pub mod softfloat;

pub use context::{Exit, Hart, HartState};
pub use interp::Interp;
