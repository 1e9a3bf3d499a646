//! Where frames come from: a V4L2 device ([`v4l`]), or pictures that take the same path: scripted ([`replay`]), or a folder of them ([`folder`]).

pub mod backoff;
pub mod orientation;
pub mod choose;
pub mod v4l;
pub mod scene;
pub mod pace;
pub mod replay;
pub mod folder;

use facelatch_shared::time::Millis;
use thiserror::Error;

/// How a frame's bytes are laid out; what the decoder accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PixelFormat {
    /// Packed 4:2:2, two bytes a pixel: Y0 U Y1 V.
    Yuyv,
    /// One JPEG picture a frame, possibly without its Huffman tables, as UVC cameras send it.
    Mjpeg,
    /// Planar 4:2:0: a plane of Y, then one of U and V in turn at half the size each way. Camera interfaces of boards give it.
    Nv12,
    /// One byte of light a pixel, full range: infrared cameras.
    Grey,
    /// Packed 8-bit RGB, for pictures that are decoded already.
    Rgb24,
}

/// One frame as the camera gave it. The buffer is reused from frame to frame.
#[derive(Clone, Debug, Default)]
pub struct RawFrame {
    /// Running number, from 1; gaps are frames that nobody fetched.
    pub seq: u64,
    /// When it was taken.
    pub at: Millis,
    /// Layout of `bytes`; `None` before the first frame.
    pub format: Option<PixelFormat>,
    /// Width that the camera announced.
    pub width_px: usize,
    /// Height that the camera announced.
    pub height_px: usize,
    /// The camera's bytes; may be truncated or corrupt.
    pub bytes: Vec<u8>,
}

/// A source of frames.
pub trait Camera: Send {
    /// Waits for the next frame and writes it over `frame`, whose buffer is reused.
    ///
    /// # Errors
    /// [`CameraError::Ended`] when a recording is over; anything else is a fault after which the caller drops this camera and
    /// opens another.
    fn next_frame(&mut self, frame: &mut RawFrame) -> Result<(), CameraError>;

    /// What the self-test and the log call this camera: device, format, size.
    fn describe(&self) -> String;
}

/// Why no frame came.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CameraError {
    /// The recording is over.
    #[error("the recording is over")]
    Ended,
    /// No such device, no permission, or it cannot do what is asked.
    #[error("camera {device}: {what}; {remedy}")]
    Unusable {
        /// Path of the device.
        device: String,
        /// What is wrong with it.
        what: String,
        /// What the installer can do.
        remedy: String,
    },
    /// It worked and then stopped: unplugged, or no frame for too long.
    #[error("camera {device} was lost: {what}")]
    Lost {
        /// Path of the device.
        device: String,
        /// What the system said.
        what: String,
    },
}
