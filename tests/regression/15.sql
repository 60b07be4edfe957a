-- database: regression
-- in place
-- check: aclitem
-- check: rejects TABLE gtest_normal_child:
-- differs by dump: Name: gtestxx_4; Type: TABLE;
-- differs by dump: Name: test_type_diff2_c1; Type: TABLE;
-- differs by dump: Name: test_type_diff2_c2; Type: TABLE;
-- differs across majors: Name: TABLE datdba_only; Type: ACL;
-- differs across majors: Name: rules_src r6; Type: RULE;
-- differs across majors: Name: rules_src r7; Type: RULE;
-- differs across majors: Name: xmlview8; Type: VIEW;
-- differs across majors: Name: xmlview9; Type: VIEW;
-- unqualified across majors

-- pg_dump lists the columns of a child that was made before it inherited in the parent's order: PostgreSQL's own test of
-- restores (AdjustDump.pm) puts those of the same three tables into that order.
-- 17 has a privilege more, MAINTAIN, which an owner has who has all others: AdjustUpgrade.pm puts it there, too.
-- 16 and later write UPDATE t AS alias in rules, and XMLSERIALIZE (... NO INDENT).

-- pg_upgrade of 16 and later: "Your installation contains the "aclitem" data type in user tables".
ALTER TABLE tab_core_types DROP COLUMN aclitem;

-- Servers of 16 and later, by any way: "child column "b" specifies generation expression".
DROP TABLE gtest_normal_child, gtest_normal_child2;
