//! Frame in, observation out.
