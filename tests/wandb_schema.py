"""The part of Weights & Biases' GraphQL that reports need, as a schema: requests are checked against it and answered
through it, by graphql-core, as a GraphQL server does.

The client ships no schema. This one holds what its own documents and models of answers tell (`wandb.apis._generated`,
`wandb_workspaces.reports.v2.gql`): which fields there are, of which types, with which arguments. Every document that it
ships on these subjects is valid by it (`documents`), so that one which is not is a mistake of whoever sent it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphql import GraphQLError, build_schema, graphql_sync, parse, validate
from graphql.language import DocumentNode, OperationDefinitionNode

SCHEMA = build_schema(
    """
    scalar JSONString
    scalar DateTime

    type Query {
        viewer: User
        project(name: String!, entityName: String): Project
        models(entityName: String, after: String, first: Int): ProjectConnection
        view(id: ID!): View
    }

    type Mutation {
        upsertView(input: UpsertViewInput!): UpsertViewPayload
        deleteView(input: DeleteViewInput!): DeleteViewPayload
        createAccessToken(input: CreateAccessTokenInput!): CreateAccessTokenPayload
        updateAccessTokenProjects(input: UpdateAccessTokenProjectsInput!): Success
        revokeAccessToken(input: RevokeAccessTokenInput!): Success
    }

    type PageInfo { endCursor: String hasNextPage: Boolean! }

    type User {
        id: ID! name: String username: String email: String admin: Boolean flags: JSONString entity: String
        deletedAt: DateTime apiKeys: ApiKeyConnection teams: EntityConnection photoUrl: String
    }
    type ApiKeyConnection { edges: [ApiKeyEdge!]! }
    type ApiKeyEdge { node: ApiKey }
    type ApiKey { id: ID! name: String! description: String }
    type EntityConnection { edges: [EntityEdge!]! }
    type EntityEdge { node: Entity }
    type Entity { name: String! }

    type ProjectConnection { edges: [ProjectEdge!]! pageInfo: PageInfo! }
    type ProjectEdge { node: Project }
    type Project {
        id: ID! internalId: ID! name: String! entityName: String! createdAt: DateTime! isBenchmark: Boolean! user: User
        runs(filters: JSONString, after: String, first: Int, order: String): RunConnection
    }
    type RunConnection { edges: [RunEdge!]! pageInfo: PageInfo! }
    type RunEdge { node: Run! cursor: String! }
    type Run { id: ID! name: String! displayName: String state: String group: String tags: [String!] }

    type View {
        id: ID! type: String name: String displayName: String description: String project: Project spec: JSONString!
        createdAt: DateTime! updatedAt: DateTime! accessTokens: [AccessToken!]!
    }
    enum CreatedUsing { WANDB_SDK }
    input UpsertViewInput {
        id: ID entityName: String projectName: String name: String displayName: String description: String type: String
        createdUsing: CreatedUsing spec: String!
    }
    type UpsertViewPayload { view: View inserted: Boolean }
    input DeleteViewInput { id: ID! deleteDrafts: Boolean }
    type DeleteViewPayload { success: Boolean pendingDrafts: Int }

    type AccessToken { token: String! type: String! revokedAt: DateTime projects: [Project!]! }
    input ProjectSpecifier { entityName: String! projectName: String! }
    input CreateAccessTokenInput { viewId: ID! projects: [ProjectSpecifier!]! }
    type CreateAccessTokenPayload { accessToken: AccessToken }
    input UpdateAccessTokenProjectsInput { token: String! projects: [ProjectSpecifier!]! }
    input RevokeAccessTokenInput { token: String! }
    type Success { success: Boolean }
    """
)


def operation(document: str) -> tuple[str, str]:
    """Name and kind of the one operation in a document; raises GraphQLError where it cannot be parsed."""
    found = [one for one in parse(document).definitions if isinstance(one, OperationDefinitionNode)]
    if len(found) != 1 or found[0].name is None:
        raise GraphQLError(f"{len(found)} operations; must be one, with a name")
    return found[0].name.value, found[0].operation.value


def wrong(document: str) -> list[str]:
    """What is wrong with a document by the schema."""
    tree: DocumentNode = parse(document)
    return [error.message for error in validate(SCHEMA, tree)]


def answered(document: str, variables: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The answer to a request out of `root`, whose values may be functions of the arguments, and what was wrong with
    it: a variable that is none or of another type, an answer that is not of the type that was promised."""
    unknown = sorted(set(variables) - _declared(document))
    result = graphql_sync(SCHEMA, document, root_value=root, variable_values=dict(variables))
    mistakes = [f"${name} is not declared" for name in unknown] + [error.message for error in result.errors or ()]
    answer: dict[str, Any] = {"data": result.data}
    if result.errors:
        answer["errors"] = [{"message": error.message} for error in result.errors]
    return answer, mistakes


def documents() -> dict[str, str]:
    """What the client and wandb-workspaces ship and reports use, by the operation's name."""
    from wandb.apis._generated import operations
    from wandb_workspaces.reports.v2 import gql

    shipped = [operations.GET_PROJECTS_GQL, operations.GET_DEFAULT_ENTITY_GQL]
    shipped += [text for name, text in vars(gql).items() if isinstance(text, str) and not name.startswith("__")]
    return {operation(text)[0]: text for text in shipped}


def _declared(document: str) -> set[str]:
    found = [one for one in parse(document).definitions if isinstance(one, OperationDefinitionNode)]
    return {variable.variable.name.value for one in found for variable in one.variable_definitions or ()}
