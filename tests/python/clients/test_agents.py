"""OpenAI's Agents SDK by its default, the Responses API: a second run calls no model and gives the same."""

import asyncio

import agents
import openai
import pydantic
from served import URL, both_runs, calls


def in_a_loop(run):
    """A run with a client of its own, as a process has one for its event loop."""

    async def started():
        async with openai.AsyncOpenAI(base_url=URL, api_key="unused", max_retries=0, timeout=120) as client:
            agents.set_default_openai_client(client, use_for_tracing=False)
            return await run()

    return asyncio.run(started())


def run(question, agent=None, **options):
    return in_a_loop(lambda: agents.Runner.run(agent or assistant(), question, **options))


@agents.function_tool
def weather(city: str, days: int) -> str:
    """The weather of a city in the next days."""
    return f"{days} days of rain in {city}"


def assistant():
    return agents.Agent(name="assistant", model="gpt-5", instructions="Be kind.", tools=[weather])


class Journey(pydantic.BaseModel):
    city: str
    days: int


def in_pieces(question):
    async def events_and_output():
        result = agents.Runner.run_streamed(assistant(), question)
        events = [event.data.type async for event in result.stream_events() if event.type == "raw_response_event"]
        return events, result.final_output

    return in_a_loop(events_and_output)


def turns(result):
    """The kinds of items of a run."""
    return [item.type for item in result.new_items]


def test_a_run():
    first, second = both_runs(lambda: run("Hello from an agent"))
    assert first.final_output and second.final_output == first.final_output
    assert second.to_input_list() == first.to_input_list()


def test_a_streamed_run():
    (events, first), (replayed, second) = both_runs(lambda: in_pieces("Hello from an agent, piece by piece"))
    assert first and second == first
    assert replayed.count("response.output_text.delta") > 3 and replayed[-1] == events[-1] == "response.completed"


def test_a_run_with_a_type_of_its_output():
    guide = agents.Agent(name="guide", model="gpt-5", output_type=Journey)
    first, second = both_runs(lambda: run("Where to?", guide).final_output)
    assert first.city == "La Coruña" and second == first


def test_a_run_that_calls_a_tool():
    first, second = both_runs(lambda: run("call a tool"))
    assert turns(first) == ["tool_call_item", "tool_call_output_item", "message_output_item"] == turns(second)
    assert first.final_output and second.final_output == first.final_output


def test_a_run_that_calls_a_tool_and_names_the_response_that_called_it():
    """Its second turn has the result of the tool and an id, in the place of all that was said."""
    question = "call a tool, and go on by its id"
    first, second = both_runs(lambda: run(question, auto_previous_response_id=True))
    assert turns(first) == ["tool_call_item", "tool_call_output_item", "message_output_item"] == turns(second)
    (called, _) = first.raw_responses
    assert f"after {called.response_id}" in first.final_output and second.final_output == first.final_output


def test_a_conversation_goes_on_from_a_cached_turn():
    first, cached = both_runs(lambda: run("Remember this"))
    assert cached.last_response_id == first.last_response_id
    before = calls()
    second = run("What was it?", previous_response_id=cached.last_response_id)
    assert calls() == before + 1 and f"after {first.last_response_id}" in second.final_output
