//! Cross-layer equalization (Nagel et al. 2019, section 4.1): a channel that one layer makes large and the next makes small is scaled
//! to the middle, so that one scale for a whole weight tensor fits all its channels. The net's answers stay the same: ReLU
//! lets a positive factor through.

use super::net::Net;

/// Values whose channels must be scaled together, because an addition joins them; who makes them and who reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stream {
    makers: Vec<usize>,
    readers: Vec<usize>,
}

/// Equalizes every stream of channels, `rounds` times through the net; a change in one moves its neighbours.
pub fn equalize(net: &mut Net, rounds: usize) {
    let streams = streams(net);
    for _ in 0..rounds {
        for stream in &streams {
            balance(net, stream);
        }
    }
}

/// The streams of `net`: the output of each layer, with those joined by additions taken together. The picture is no stream, and the
/// embedding is none either: both are fixed from outside.
fn streams(net: &Net) -> Vec<Stream> {
    let count = net.layers.len();
    // Which stream a value belongs to, by its first value.
    let mut root: Vec<usize> = (0..=count).collect();
    for (index, layer) in net.layers.iter().enumerate() {
        if let Some(skip) = layer.skip {
            let (old, new) = (root[index + 1], root[skip]);
            root.iter_mut().filter(|r| **r == old).for_each(|r| *r = new);
        }
    }
    (1..count)
        .filter(|&value| root[value] == value)
        .map(|value| Stream {
            makers: (0..count).filter(|&l| root[l + 1] == value).collect(),
            readers: (0..count).filter(|&l| root[net.layers[l].from] == value).collect(),
        })
        .filter(|stream| !stream.readers.is_empty())
        .collect()
}

/// Scales each channel by √(range where it is read / range where it is made), and divides where it is read.
fn balance(net: &mut Net, stream: &Stream) {
    let channels = net.layers[stream.makers[0]].dense.dims[0] as usize;
    let largest = |net: &Net, layers: &[usize], made: bool, channel: usize| {
        layers.iter().map(|&l| range(net, l, made, channel)).fold(0.0_f32, f32::max)
    };
    for channel in 0..channels {
        let made = largest(net, &stream.makers, true, channel);
        let read = largest(net, &stream.readers, false, channel);
        // A dead channel has no scale of its own.
        if made <= 1e-9 || read <= 1e-9 {
            continue;
        }
        let factor = (read / made).sqrt().clamp(1e-3, 1e3);
        for &maker in &stream.makers {
            each(net, maker, true, channel, |v| *v *= factor);
            net.layers[maker].dense.bias[channel] *= factor;
        }
        for &reader in &stream.readers {
            each(net, reader, false, channel, |v| *v /= factor);
        }
    }
}

/// Largest weight of a layer's output channel (`made`) or input channel.
fn range(net: &Net, layer: usize, made: bool, channel: usize) -> f32 {
    indices(net, layer, made, channel).fold(0.0, |m, i| m.max(net.layers[layer].dense.values[i].abs()))
}

fn each(net: &mut Net, layer: usize, made: bool, channel: usize, change: impl Fn(&mut f32)) {
    for i in indices(net, layer, made, channel).collect::<Vec<_>>() {
        change(&mut net.layers[layer].dense.values[i]);
    }
}

/// Where the weights of one channel are; a depthwise layer reads channel c by its output channel c alone.
fn indices(net: &Net, layer: usize, made: bool, channel: usize) -> impl Iterator<Item = usize> + use<> {
    let dims = &net.layers[layer].dense.dims;
    let (inputs, kernel) = (dims[1] as usize, (dims[2] * dims[3]) as usize);
    let whole_row = made || net.layers[layer].geometry.groups > 1;
    let outputs = dims[0] as usize;
    let rows = if whole_row { channel..channel + 1 } else { 0..outputs };
    rows.flat_map(move |row| {
        let start = row * inputs * kernel;
        if whole_row {
            start..start + inputs * kernel
        } else {
            start + channel * kernel..start + (channel + 1) * kernel
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::net::tests::{chips, small};
    use super::*;

    /// How far channel 3 of the stream that layers 1 and 3 make stands above its median channel.
    fn outstanding(net: &Net) -> f32 {
        let made = |c: usize| range(net, 1, true, c).max(range(net, 3, true, c));
        let mut ranges: Vec<f32> = (0..net.layers[1].dense.dims[0] as usize).map(made).collect();
        ranges.sort_unstable_by(f32::total_cmp);
        made(3) / ranges[ranges.len() / 2]
    }

    #[test]
    fn answers_stay_and_channels_come_closer() {
        let (store, _, shape) = small();
        let mut net = Net::fold(&store, &shape).unwrap();
        // One channel of a residual stream a hundred times as large as the others.
        each(&mut net, 1, true, 3, |v| *v *= 100.0);
        net.layers[1].dense.bias[3] *= 100.0;
        let before = net.clone();
        equalize(&mut net, 3);
        let chips = chips(2);
        let run = |net: &Net| net.values(&net.tensors(), &chips).pop().unwrap();
        let (a, b) = (run(&before), run(&net));
        let difference = ((&a - &b).norm() / a.norm()).double_value(&[]);
        assert!(difference < 1e-4, "{difference}");
        // Made much larger, read as before: the square root of it is left on either side.
        let (was, is) = (outstanding(&before), outstanding(&net));
        assert!(was > 5.0 && is < was / 2.0, "{was} {is}");
    }

    #[test]
    fn an_addition_joins_its_operands() {
        let (store, _, shape) = small();
        let net = Net::fold(&store, &shape).unwrap();
        let joined = streams(&net).into_iter().find(|s| s.makers.len() > 1).unwrap();
        // stage0.down and stage0.block0.b make it, stage0.block0.a and stage1.down read it.
        assert_eq!((joined.makers, joined.readers), (vec![1, 3], vec![2, 4]));
    }
}
