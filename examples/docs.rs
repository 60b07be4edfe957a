//! Writes man pages and shell completions, from the arguments that the programs themselves parse, into the
//! directory that is its argument.

use std::fs;
use std::io::Result;
use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::aot::{Bash, Fish, Zsh, generate_to};
use matrix_postgres::cli;

fn main() -> Result<()> {
    let target = PathBuf::from(std::env::args_os().nth(1).expect("usage: docs DIRECTORY"));
    let (man, completions) = (target.join("man"), target.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    for (mut command, section) in [
        (cli::setup::Arguments::command(), "1"),
        (cli::backup::Arguments::command(), "1"),
        (cli::psql::Arguments::command(), "1"),
        (cli::upgrade::Arguments::command(), "1"),
        (cli::server::Arguments::command(), "8"),
    ] {
        let name = command.get_name().to_owned();
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).section(section).render(&mut page)?;
        fs::write(man.join(format!("{name}.{section}")), page)?;
        if section == "1" {
            generate_to(Bash, &mut command, &name, &completions)?;
            generate_to(Zsh, &mut command, &name, &completions)?;
            let fish = generate_to(Fish, &mut command, &name, &completions)?;
            // That of a program without options.
            if fs::metadata(&fish)?.len() == 0 {
                fs::remove_file(fish)?;
            }
        }
    }
    Ok(())
}
