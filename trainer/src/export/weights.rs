//! Weights on their way out: batch normalization folded in, then one int8 scale for each output channel.

/// Weights and bias of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// `[out, …]`.
    pub dims: Vec<i64>,
    /// Row by row of `out`.
    pub values: Vec<f32>,
    /// `[out]`.
    pub bias: Vec<f32>,
}

/// Weights as int8 codes; value = code · scale of its output channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Codes {
    /// −127 to 127.
    pub codes: Vec<i8>,
    /// `[out]`.
    pub scales: Vec<f32>,
}

/// What batch normalization has learnt, each `[out]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// Scale.
    pub weight: Vec<f32>,
    /// Shift.
    pub bias: Vec<f32>,
    /// Running mean.
    pub mean: Vec<f32>,
    /// Running variance.
    pub var: Vec<f32>,
}

impl Dense {
    /// A layer followed by normalization as one layer: w·γ/√(σ²+ε), β + (b − μ)·γ/√(σ²+ε).
    #[must_use]
    pub fn fold(mut self, norm: &Norm, epsilon: f64) -> Self {
        let per_channel = self.per_channel();
        for (channel, row) in self.values.chunks_mut(per_channel).enumerate() {
            let gain = f64::from(norm.weight[channel]) / (f64::from(norm.var[channel]) + epsilon).sqrt();
            for value in row {
                *value = (f64::from(*value) * gain) as f32;
            }
            let centred = f64::from(self.bias[channel]) - f64::from(norm.mean[channel]);
            self.bias[channel] = (f64::from(norm.bias[channel]) + centred * gain) as f32;
        }
        self
    }

    /// All weights times `by`, for an input that is `1 / by` times as large. The bias stays.
    #[must_use]
    pub fn scaled(mut self, by: f32) -> Self {
        self.values.iter_mut().for_each(|v| *v *= by);
        self
    }

    /// Symmetric int8; each channel's scale is the one of 21 between 80 % and 100 % of the peak with the least squared error.
    #[must_use]
    pub fn quantize(&self) -> Codes {
        let mut codes = Vec::with_capacity(self.values.len());
        let mut scales = Vec::with_capacity(self.bias.len());
        for row in self.values.chunks(self.per_channel()) {
            let peak = row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            let full = if peak > 0.0 { peak / 127.0 } else { 1.0 };
            let error = |scale: f32| -> f64 {
                row.iter().map(|&v| f64::from(v - f32::from(code(v, scale)) * scale).powi(2)).sum()
            };
            let scale = (0..=20)
                .map(|step| full * (1.0 - 0.01 * step as f32))
                .map(|scale| (error(scale), scale))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .map_or(full, |(_, scale)| scale);
            codes.extend(row.iter().map(|&v| code(v, scale)));
            scales.push(scale);
        }
        Codes { codes, scales }
    }

    fn per_channel(&self) -> usize {
        (self.values.len() / self.bias.len().max(1)).max(1)
    }
}

fn code(value: f32, scale: f32) -> i8 {
    (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn codes_come_back_within_the_clipped_range(
            values in prop::collection::vec(-3.0_f32..3.0, 12), gain in 0.001_f32..100.0,
        ) {
            let layer = Dense { dims: vec![3, 4], values, bias: vec![0.0; 3] }.scaled(gain);
            let Codes { codes, scales } = layer.quantize();
            for (i, (&value, &code)) in layer.values.iter().zip(&codes).enumerate() {
                let row = &layer.values[i / 4 * 4..i / 4 * 4 + 4];
                let peak = row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                let scale = scales[i / 4];
                prop_assert!((f32::from(code) * scale - value).abs() <= 0.2 * peak + scale);
            }
        }
    }

    #[test]
    fn the_searched_scale_is_no_worse_than_the_peak() {
        let values: Vec<f32> = (0..576).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).powi(3)).collect();
        let layer = Dense { dims: vec![1, 576], values, bias: vec![0.0] };
        let error = |scale: f32| -> f32 {
            layer.values.iter().map(|&v| (v - f32::from(code(v, scale)) * scale).powi(2)).sum()
        };
        assert!(error(layer.quantize().scales[0]) <= error(1.0 / 127.0));
    }

    #[test]
    fn folding_is_what_the_two_layers_do() {
        let layer = Dense { dims: vec![2, 1], values: vec![2.0, -1.0], bias: vec![0.5, 0.0] };
        let norm = Norm {
            weight: vec![3.0, 1.0],
            bias: vec![0.1, 0.2],
            mean: vec![1.0, -1.0],
            var: vec![4.0, 0.25],
        };
        let folded = layer.clone().fold(&norm, 0.0);
        for channel in 0..2 {
            let x = 0.7_f32;
            let y = layer.values[channel] * x + layer.bias[channel];
            let unit = (y - norm.mean[channel]) / norm.var[channel].sqrt();
            let expected = unit * norm.weight[channel] + norm.bias[channel];
            assert!((folded.values[channel] * x + folded.bias[channel] - expected).abs() < 1e-6);
        }
    }
}
