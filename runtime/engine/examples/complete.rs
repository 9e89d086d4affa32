//! Answers one question on the terminal: `complete MODEL.gguf QUESTION [SEED]`.

use std::{error::Error, io::Write, ops::ControlFlow, path::Path, sync::Arc};

use cocoon_engine::{ChatMessage, Engine, EngineOptions, Model, Params, Sampling};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, question, rest @ ..] = arguments.as_slice() else {
        return Err("usage: complete MODEL.gguf QUESTION [SEED]".into());
    };
    let seed = rest.first().map_or(Ok(0), |seed| seed.parse())?;
    let model = Arc::new(Model::open(Path::new(path))?);
    let message = ChatMessage { role: "user".into(), content: question.clone() };
    let prompt = model.tokenizer().encode(&model.render_chat(&[message], true)?, true);
    let engine = Engine::new(Arc::clone(&model), EngineOptions::default());
    let params = Params { sampling: Sampling { seed, ..Sampling::default() }, ..Params::default() };
    let done = engine.generate(&prompt, &params, |step| {
        print!("{}", step.text);
        match std::io::stdout().flush() {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()), // nobody reads on
        }
    })?;
    println!("\n[{} + {} tokens, {:?}]", done.prompt_tokens, done.completion_tokens, done.finish);
    Ok(())
}
