//! The admission policies of this folder, read as they ship, decide requests here as the API server would. Tests alone use it.
//!
//! Not modelled: other plugins of admission, reinvocation, budgets of cost, and defaults that the API server fills in.
#![forbid(unsafe_code)]

mod decide;
mod expression;
mod manifest;

pub use decide::{Policies, Request};
pub use manifest::*;
