//! Parts of images, as the transforms and the device that applies them both name them.

/// The longest side, in pixels, of an image that a device crops: the weights of one that shrinks further would take more memory than they save.
pub const MAX_SOURCE_SIDE: usize = 16_384;

/// A part of an image, in pixels; edges may lie between pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropBox {
    /// From the image's left edge.
    pub left: f64,
    /// From the image's top edge.
    pub top: f64,
    /// Across.
    pub width: f64,
    /// Down.
    pub height: f64,
}

impl CropBox {
    /// All of a `width` by `height` image.
    pub fn whole(width: usize, height: usize) -> Self {
        Self { left: 0.0, top: 0.0, width: width as f64, height: height as f64 }
    }

    /// The box without what is outside a `width` by `height` image: a scaled one may end a rounding error beyond.
    pub fn inside(self, width: usize, height: usize) -> Self {
        let (width, height) = (width as f64, height as f64);
        let (left, top) = (self.left.clamp(0.0, width), self.top.clamp(0.0, height));
        Self { left, top, width: self.width.min(width - left), height: self.height.min(height - top) }
    }
}
