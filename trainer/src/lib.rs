//! The workstation.
