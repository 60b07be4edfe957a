//! See `matrix_postgres::cli::setup`.

fn main() -> std::process::ExitCode {
    matrix_postgres::cli::main("matrix-postgres", matrix_postgres::cli::setup::run)
}
