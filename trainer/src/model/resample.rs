//! Square pictures at another size, as two matrix products: the same sums in libtorch and in an ONNX runtime, unlike the many kinds
//! of `Resize`.

use tch::Tensor;

/// `[…, from, from]` to `[…, to, to]`: area means when shrinking, bilinear when enlarging. As it is when the size fits.
pub fn square(x: &Tensor, to: i64) -> Tensor {
    let from = x.size().last().copied().unwrap_or(0);
    if from == to {
        return x.shallow_clone();
    }
    let rows =
        Tensor::from_slice(&matrix(from as usize, to as usize)).reshape([to, from]).to_device(x.device());
    rows.matmul(&x.matmul(&rows.tr()))
}

/// The matrix `[to, from]`, row by row; each row sums to one.
#[must_use]
pub fn matrix(from: usize, to: usize) -> Vec<f32> {
    let step = from as f64 / to as f64;
    let mut rows = vec![0.0_f32; from * to];
    for (i, row) in rows.chunks_exact_mut(from.max(1)).enumerate() {
        if step > 1.0 {
            let (start, end) = (i as f64 * step, (i + 1) as f64 * step);
            for (j, weight) in row.iter_mut().enumerate() {
                let overlap = end.min((j + 1) as f64) - start.max(j as f64);
                *weight = (overlap.max(0.0) / step) as f32;
            }
        } else {
            let at = ((i as f64 + 0.5) * step - 0.5).clamp(0.0, (from - 1) as f64);
            let below = at.floor() as usize;
            row[below] += (1.0 - at.fract()) as f32;
            row[(below + 1).min(from - 1)] += at.fract() as f32;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn rows_sum_to_one_at_any_size() {
        for (from, to) in [(112, 64), (112, 56), (112, 224), (112, 152), (5, 7), (7, 5), (3, 1), (1, 4)] {
            for row in matrix(from, to).chunks(from) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{from} to {to}");
            }
        }
    }

    #[test]
    fn half_the_size_is_the_mean_of_four_and_double_keeps_a_ramp() {
        let x = Tensor::arange(16, (Kind::Float, Device::Cpu)).reshape([1, 1, 4, 4]);
        let half = Vec::<f32>::try_from(square(&x, 2).flatten(0, -1)).unwrap();
        assert_eq!(half, [2.5, 4.5, 10.5, 12.5]);
        let double = square(&x, 8);
        // Columns of a row: 0, 0.25, 0.75 …, the edge repeated.
        let row = Vec::<f32>::try_from(double.get(0).get(0).get(0)).unwrap();
        assert_eq!(row, [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]);
        assert!(square(&x, 4).equal(&x));
    }
}
