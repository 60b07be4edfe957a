//! See `matrix_postgres::cli::upgrade`.

fn main() -> std::process::ExitCode {
    matrix_postgres::cli::main("matrix-postgres-upgrade", matrix_postgres::cli::upgrade::run)
}
