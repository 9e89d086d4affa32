//! What a request's answers are held to, and how this worker's model writes calls of tools.

use crate::openai::{Call, Format, Refusal};
use cocoon_engine::{CallForm, Model};
use cocoon_grammar::{Calls, Grammar, GrammarError};
use std::sync::OnceLock;

/// Of one model; found out when it is first asked for.
#[derive(Default)]
pub(crate) struct Grammars {
    followed: cocoon_grammar::Grammars,
    form: OnceLock<Option<CallForm>>,
}

impl Grammars {
    /// How the model's own template writes calls; `None` where it does not.
    pub(crate) fn form(&self, model: &Model) -> Option<&CallForm> {
        self.form.get_or_init(|| model.vocabulary().call_form()).as_ref()
    }

    /// One constraint for each of `choices` answers.
    ///
    /// # Errors
    /// The grammar is over its budget or cannot be satisfied, or the model's vocabulary cannot be used for any.
    pub(crate) fn constraints(
        &self,
        model: &Model,
        grammar: &Grammar,
        choices: u32,
        param: &str,
    ) -> Result<Vec<Box<dyn cocoon_engine::Constraint>>, Refusal> {
        self.followed.constraints(model, grammar, choices).map_err(|error| match error {
            GrammarError::Vocabulary => Refusal::server(500, "model_unusable", error.to_string()),
            GrammarError::Refused(why) => {
                let message = format!("answers cannot be held to this schema: {why}; write a simpler one");
                Refusal::new(400, "invalid_json_schema", message).with_param(param)
            }
        })
    }
}

/// The grammar of a request's answers, and the field that it comes from; `None` where they are free.
pub(crate) fn grammar(call: &Call) -> Option<(Grammar, &'static str)> {
    let schema = match &call.format {
        Format::Free => None,
        Format::Schema(schema) => Some(schema),
    };
    let Some(tools) = &call.tools else {
        return schema.map(|schema| (Grammar::json(schema), "response_format"));
    };
    let (form, _) = call.calls()?;
    let listed = tools.list.iter().map(|tool| (tool.name.as_str(), &tool.schema)).collect();
    let calls = Calls { form: &form, tools: listed, required: tools.required, parallel: tools.parallel };
    Some((Grammar::calls(&calls, schema), "tools"))
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;
