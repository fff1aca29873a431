Feature: Data
  What a task gets, gives and exports; what it must look like; and secrets, of which only the name
  is ever written down.

  Scenario: Input, output and export are shaped and fit their schemas
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: shaped, version: '1.0.0' }
    input: { schema: { document: { type: object, required: [user] } }, from: .user }
    do:
      - greet:
          input: { schema: { document: { required: [name] } }, from: '{ who: .name }' }
          set: { text: '${ "Hello, \(.who)" }' }
          output: { as: .text, schema: { document: { type: string } } }
          export: { as: '{ greeting: . }', schema: { document: { required: [greeting] } } }
      - close: { set: { said: '${ $context.greeting }' } }
    output: { as: .said, schema: { document: { type: string, minLength: 3 } } }
    """
    And given the workflow input is:
    """yaml
    user: { name: Ada }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    Hello, Ada
    """

  Scenario: An output that misses its schema is an error of validation
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: missed, version: '1.0.0' }
    do:
      - getPet:
          call: http
          with: { method: get, endpoint: 'https://petstore.swagger.io/v2/pet/7' }
          output: { schema: { document: { properties: { id: { type: string } } } } }
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: https://open-workflow-specification.org/dsl/errors/types/validation
    status: 400
    title: The output misses its schema
    detail: '/id: 7 is not of type "string"'
    instance: /do/0/getPet
    """

  Scenario: An input that misses its schema is caught like any other error
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: caught, version: '1.0.0' }
    do:
      - guarded:
          try:
            - strict:
                input: { schema: { document: { type: object, required: [topic] } } }
                set: { topic: '${ .topic }' }
          catch:
            errors: { with: { type: 'https://open-workflow-specification.org/dsl/errors/types/validation' } }
            do: [otherwise: { set: { topic: nothing, at: '${ $error.instance }' } }]
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    topic: nothing
    at: /do/0/guarded/try/0/strict
    """

  Scenario: A context that misses its schema is not exported
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: context, version: '1.0.0' }
    do:
      - a:
          set: { n: 1 }
          export: { as: '{ n: .n }', schema: { document: { properties: { n: { minimum: 2 } } } } }
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    title: The context misses its schema
    instance: /do/0/a
    """

  Scenario: A secret is used, and its name alone is written down
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: secret, version: '1.0.0' }
    use: { secrets: [PATH] }
    do:
      - ask:
          call: http
          with:
            method: get
            endpoint:
              uri: https://httpbin.org/bearer
              authentication: { bearer: { token: '${ $secrets.PATH }' } }
            output: response
          output: { as: '{ authenticated: .content.authenticated, uri: .request.uri }' }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    authenticated: true
    uri: https://httpbin.org/bearer
    """
    And the log should hold 'PATH'
    And the log should not hold the secret 'PATH'
