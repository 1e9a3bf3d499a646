//! A camera at a V4L2 device.
