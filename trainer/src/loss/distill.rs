//! Distillation: the student's vector of a varied chip should be the teacher's of the plain one.

use tch::{Kind, Tensor};

/// Mean of 1 − cos(student, teacher). Both `[batch, dim]`; the teacher's rows have length one, the student's any.
pub fn cosine(student: &Tensor, teacher: &Tensor) -> Tensor {
    1.0 - (unit(student) * teacher).sum_dim_intlist(1, false, Kind::Float).mean(Kind::Float)
}

/// Relational term: mean squared difference between the cosines of all pairs in the batch, student's against teacher's
/// (Park et al. 2019, relational knowledge distillation, with angles at the origin), times the batch size so that its
/// scale is that of one row. It weighs what verification uses: the angles between faces.
pub fn relational(student: &Tensor, teacher: &Tensor) -> Tensor {
    let student = unit(student);
    let n = student.size()[0] as f64;
    let difference = student.matmul(&student.tr()) - teacher.matmul(&teacher.tr());
    difference.square().mean(Kind::Float) * n
}

/// Rows scaled to length one.
pub fn unit(x: &Tensor) -> Tensor {
    x / x.square().sum_dim_intlist(1, true, Kind::Float).clamp_min(1e-12).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_right_answer_costs_nothing_at_any_length() {
        tch::manual_seed(3);
        let teacher = unit(&Tensor::randn([8, 128], (Kind::Float, Device::Cpu)));
        let student = &teacher * 7.0;
        assert!(cosine(&student, &teacher).double_value(&[]).abs() < 1e-6);
        assert!(relational(&student, &teacher).double_value(&[]).abs() < 1e-6);
        assert!((cosine(&-&student, &teacher).double_value(&[]) - 2.0).abs() < 1e-6);
    }

    #[test]
    fn a_common_rotation_costs_cosine_but_no_relation() {
        tch::manual_seed(4);
        let teacher = unit(&Tensor::randn([8, 128], (Kind::Float, Device::Cpu)));
        let rotated = teacher.flip([1]);
        assert!(cosine(&rotated, &teacher).double_value(&[]) > 0.5);
        assert!(relational(&rotated, &teacher).double_value(&[]) < 1e-6);
    }
}
