//! See `matrix_postgres::cli::backup`.

fn main() -> std::process::ExitCode {
    matrix_postgres::cli::main("matrix-postgres-backup", matrix_postgres::cli::backup::run)
}
