//! Triggers that the server makes for foreign keys. They are called by a number that no other database has, and yet a dump says of
//! those of a partition whether they are switched on, if that is not as with its parent's: every restore of it has such a
//! statement refused (`dumpTrigger`, pg_dump.c of 15 to 19; `CreateTriggerFiringOn`, trigger.c).

/// Whether it is the name of one, such as `RI_ConstraintTrigger_c_16495`.
pub fn is_name(name: &str) -> bool {
    let number = ["RI_ConstraintTrigger_a_", "RI_ConstraintTrigger_c_"]
        .iter()
        .find_map(|start| name.strip_prefix(start));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_own_are_meant() {
        assert!(is_name("RI_ConstraintTrigger_c_16495") && is_name("RI_ConstraintTrigger_a_1"));
        for other in
            ["RI_ConstraintTrigger_c_", "RI_ConstraintTrigger_b_1", "RI_ConstraintTrigger_c_1x", "my_trigger"]
        {
            assert!(!is_name(other), "{other}");
        }
    }
}
