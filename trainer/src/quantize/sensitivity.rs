//! Which layers may compute on codes: what each costs alone, and what has to stay float until the net is near enough.

use serde::Serialize;
use tch::Tensor;

use super::net::Net;
use super::simulate::Plan;
use super::{cosines, embed_integer};

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sensitivity {
    /// The layer.
    pub layer: String,
    /// Millions of multiply-adds for one face.
    pub mmac: f64,
    /// 1 − mean cosine to the float net when this layer alone is integer; nothing for layers that never are.
    pub cost: Option<f64>,
    /// Whether it is integer in the end.
    pub integer: bool,
    /// Why not, when it is not.
    pub why: Option<&'static str>,
}

/// Measures every eligible layer alone, then takes the costliest out of `plan` until the mean cosine of `plan` reaches `least`.
pub fn choose(
    net: &Net,
    plan: &mut Plan,
    scales: &[f32],
    chips: &Tensor,
    expected: &Tensor,
    least: f64,
) -> Vec<Sensitivity> {
    let eligible = plan.integer.clone();
    let mut rows: Vec<Sensitivity> = (0..net.layers.len())
        .map(|index| {
            let cost = eligible[index].then(|| {
                let mut alone = plan.clone();
                alone.integer.iter_mut().enumerate().for_each(|(i, int)| *int = i == index);
                1.0 - cosines(&embed_integer(net, &alone, scales, chips), expected).mean
            });
            let why = (!eligible[index]).then(|| never(net, index));
            Sensitivity {
                layer: net.layers[index].name.clone(),
                mmac: net.layers[index].multiplications(side_after(net, index)) as f64 / 1e6,
                cost,
                integer: eligible[index],
                why,
            }
        })
        .collect();
    while plan.integers() > 0 && cosines(&embed_integer(net, plan, scales, chips), expected).mean < least {
        let costliest = (0..rows.len())
            .filter(|&i| plan.integer[i])
            .max_by(|&a, &b| rows[a].cost.unwrap_or(0.0).total_cmp(&rows[b].cost.unwrap_or(0.0)));
        let Some(index) = costliest else { break };
        plan.integer[index] = false;
        (rows[index].integer, rows[index].why) = (false, Some("the costliest of those left, see its cost"));
    }
    rows
}

/// Share of multiply-adds in integer layers.
#[must_use]
pub fn integer_share(rows: &[Sensitivity]) -> f64 {
    let sum = |all: bool| rows.iter().filter(|r| all || r.integer).map(|r| r.mmac).sum::<f64>();
    sum(false) / sum(true)
}

fn never(net: &Net, index: usize) -> &'static str {
    match index {
        0 => "first: three channels, a hundredth of the work, and it sees the picture",
        _ if index + 1 == net.layers.len() => "last: the embedding itself, a thousandth of the work",
        _ if net.layers[index].geometry.groups > 1 => {
            "depthwise: tract has no integer kernel, 11 times slower"
        }
        _ => "asked for",
    }
}

/// Side of what layer `index` gives for a chip of 112×112.
fn side_after(net: &Net, index: usize) -> i64 {
    let mut sides = vec![112_i64];
    for layer in &net.layers[..=index] {
        let geometry = layer.geometry;
        let kernel = layer.dense.dims[2];
        sides.push((sides[layer.from] + 2 * geometry.padding - kernel) / geometry.stride + 1);
    }
    sides[index + 1]
}

#[cfg(test)]
mod tests {
    use super::super::net::tests::{chips, small};
    use super::super::observer::Observer;
    use super::super::simulate::{Observed, scales};
    use super::super::{Net, embed_float};
    use super::*;

    #[test]
    fn the_costliest_layers_go_first_until_the_bound_is_met() {
        let (store, _, shape) = small();
        let net = Net::fold(&store, &shape).unwrap();
        let (chips, scales) = (chips(8), scales(&net));
        let expected = embed_float(&net, &chips);
        let integer: Vec<bool> = (0..net.layers.len()).map(|i| net.may_be_integer(i)).collect();
        let mut plan = Observed::over(&net, &net.tensors(), &chips).plan(Observer::MinMax, integer.clone());
        let all = cosines(&embed_integer(&net, &plan, &scales, &chips), &expected).mean;
        let bound = all + (1.0 - all) * 0.5;
        let rows = choose(&net, &mut plan, &scales, &chips, &expected, bound);
        let reached = cosines(&embed_integer(&net, &plan, &scales, &chips), &expected).mean;
        assert!(reached >= bound, "{reached} {bound}");
        let out: Vec<&Sensitivity> = rows.iter().filter(|r| r.cost.is_some() && !r.integer).collect();
        let kept: Vec<&Sensitivity> = rows.iter().filter(|r| r.integer).collect();
        assert!(!out.is_empty() && !kept.is_empty());
        let least_out = out.iter().filter_map(|r| r.cost).fold(f64::MAX, f64::min);
        assert!(kept.iter().filter_map(|r| r.cost).all(|cost| cost <= least_out));
        assert!(out.iter().all(|r| r.why.is_some()));
    }

    #[test]
    fn the_work_of_the_layers_is_that_of_the_nets_table() {
        let store = tch::nn::VarStore::new(tch::Device::Cpu);
        let shape = crate::model::compact::Shape::default();
        let _net = crate::model::compact::Compact::new(&store.root(), &shape);
        let net = Net::fold(&store, &shape).unwrap();
        let total: i64 =
            net.layers.iter().enumerate().map(|(i, l)| l.multiplications(side_after(&net, i))).sum();
        assert!((225_000_000..228_000_000).contains(&total), "{total}");
    }
}
