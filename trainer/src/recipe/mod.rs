//! The recipes: what each net is trained with, how, and on what. One file each; the loop is [`crate::train`].

pub mod compact;
pub mod facenet;
pub mod student;
pub mod detector;
pub mod fiducials;
pub mod classify;
pub mod deepface;
pub mod vggface;
pub mod vggface_embedding;
