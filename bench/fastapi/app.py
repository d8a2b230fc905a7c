"""The same API as plain FastAPI code has it: what the users of this backend would otherwise run.

uvicorn, redis-py and httpx, each used as its documentation shows. Kept: login, token check, a rate limit, history in
Redis lists, whole and streamed answers, a WebSocket. Left out, to its advantage: resumable streams, leases,
idempotency, revocation, the queue, checks of anything but shape.
"""

import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import jwt
from fastapi import Depends, FastAPI, Header, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from redis.asyncio import Redis

SECRET = os.environ.get("JWT_SECRET", "a secret for measurements alone, 32 bytes")
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
OLLAMA_URL = os.environ.get("OLLAMA_URL", "http://127.0.0.1:11434")
REQUESTS_PER_SECOND = int(os.environ.get("REQUESTS_PER_SECOND", "1000000"))
HISTORY_MESSAGES = int(os.environ.get("HISTORY_MESSAGES", "200"))
HOUR = 3600


class Login(BaseModel):
    user_id: str = Field(min_length=1, max_length=64)


class Message(BaseModel):
    message: str = Field(min_length=1, max_length=32768)
    session_id: str = Field(default="default", max_length=64)
    on_disconnect: str | None = None


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.redis = Redis.from_url(REDIS_URL, decode_responses=True)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    app.state.http = httpx.AsyncClient(base_url=OLLAMA_URL, timeout=120, limits=limits)
    yield
    await app.state.http.aclose()
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)


def user_of(authorization: str) -> str:
    try:
        return jwt.decode(authorization.removeprefix("Bearer "), SECRET, algorithms=["HS256"])["sub"]
    except jwt.PyJWTError as error:
        raise HTTPException(401, "invalid token") from error


async def admit(redis: Redis, user: str) -> None:
    key = f"rate:{user}:{int(time.time())}"
    async with redis.pipeline(transaction=False) as pipe:
        count, _ = await pipe.incr(key).expire(key, 2).execute()
    if count > REQUESTS_PER_SECOND:
        raise HTTPException(429, "rate limited")


async def caller(request: Request, authorization: Annotated[str, Header()]) -> str:
    user = user_of(authorization)
    await admit(request.app.state.redis, user)
    return user


async def tokens(app: FastAPI, user: str, message: Message) -> AsyncIterator[str]:
    """The answer's tokens; the question is stored before and the answer after them."""
    redis: Redis = app.state.redis
    key = f"history:{user}:{message.session_id}"
    question = {"role": "user", "content": message.message}
    await redis.rpush(key, json.dumps(question))
    stored = await redis.lrange(key, -HISTORY_MESSAGES, -1)
    body = {"model": "mock", "messages": [json.loads(item) for item in stored], "stream": True}
    answer = []
    async with app.state.http.stream("POST", "/api/chat", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            piece = json.loads(line)
            token = piece["message"]["content"]
            if token:
                answer.append(token)
                yield token
            if piece["done"]:
                break
    await redis.rpush(key, json.dumps({"role": "assistant", "content": "".join(answer)}))


@app.get("/readyz")
async def readyz() -> dict:
    await app.state.redis.ping()
    return {"status": "ok"}


@app.post("/auth/login")
async def login(body: Login) -> dict:
    claims = {"sub": body.user_id, "exp": int(time.time()) + HOUR}
    return {"access_token": jwt.encode(claims, SECRET, algorithm="HS256"), "token_type": "bearer", "expires_in": HOUR}


@app.post("/chat/message")
async def message(body: Message, request: Request, user: Annotated[str, Depends(caller)], stream: bool = False):
    pieces = tokens(request.app, user, body)
    if not stream:
        reply = "".join([token async for token in pieces])
        return {"user_id": user, "reply": reply, "session_id": body.session_id, "message_id": str(uuid.uuid4())}

    async def events() -> AsyncIterator[str]:
        async for token in pieces:
            yield f"data: {json.dumps({'token': token, 'is_final': False})}\n\n"
        yield f"event: done\ndata: {json.dumps({'token': '', 'is_final': True})}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.websocket("/chat/ws")
async def socket(websocket: WebSocket) -> None:
    user = user_of(websocket.headers.get("authorization", ""))
    await websocket.accept()
    try:
        while True:
            body = Message.model_validate_json(await websocket.receive_text())
            await admit(websocket.app.state.redis, user)
            async for token in tokens(websocket.app, user, body):
                await websocket.send_text(json.dumps({"type": "token", "token": token, "is_final": False}))
            done = {"type": "done", "token": "", "is_final": True}
            await websocket.send_text(json.dumps(done, separators=(",", ":")))
    except WebSocketDisconnect:
        return
